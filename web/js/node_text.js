// The words a node says (progress, matched LoRA modules, effective size, cost) and what went wrong
// with it, kept on it until it runs again.
//
// Everything works without this file: the same words are in the node's ui output and in the log.
// The host's own progress text does not keep them: frontends from 1.58 remove it when the run ends,
// is stopped or fails, and earlier ones show two lines of it; an error is a click away in a panel.
// A DOM widget shows on the classic canvas and in Nodes 2.0, and stays out of saved workflows and
// prompts.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'
import { after, element, widgetOf } from './page.js'
import { t, words } from './words.js'

const PREFIX = 'Flux2Edit'
const NAME = 'flux2_edit_text'
const PROGRESS_TEXT = '$$node-text-preview' // the host's name for the text it shows during a run
const ERROR = 'flux2_edit_error' // beside a node's outputs, which the page keeps for undo and tabs
const MARGIN = 10 // what the classic canvas leaves free around a DOM widget
const MAX_HEIGHT = 260
const MAX_TEXT = 20_000
const LOOK_MS = 200
const LOOK_LONGEST_MS = 600_000
// Control characters, and what turns the direction of text or cannot be seen.
const UNSEEN = new RegExp(
  '[\\x00-\\x09\\x0b-\\x1f\\x7f-\\x9f\\xad\\u061c\\u180e\\u200b\\u200e\\u200f\\u2028-\\u202e' +
    '\\u2060-\\u206f\\ufeff\\ufff9-\\ufffb]',
  'g'
)
// The one site whose pages our own texts name. Files and servers have a say in a text: no others.
const OUR_LINKS = /(https:\/\/www\.runcomfy\.com\/[\w/-]*\w)/

/** What a node of ours failed with, while it shows it: told to window when it comes and goes. */
export const ERROR_EVENT = 'flux2-lora-edit:error'
const failures = new WeakMap()
const spoken = new WeakMap() // what a node said last during a run

const isOurs = (node) => node?.comfyClass?.startsWith(PREFIX)

function dropWidget(node, name) {
  const widget = widgetOf(node, name)
  if (!widget) return
  widget.onRemove?.()
  node.widgets.splice(node.widgets.indexOf(widget), 1)
}

function makeFace() {
  const face = element('div', { className: 'flux2-edit-text' })
  Object.assign(face.style, {
    boxSizing: 'border-box',
    padding: '4px 8px',
    overflow: 'auto',
    whiteSpace: 'pre-wrap',
    overflowWrap: 'anywhere',
    font: '12px/1.45 system-ui, sans-serif',
    color: 'var(--input-text, #ddd)',
    background: 'var(--comfy-input-bg, #222)',
    borderRadius: '6px',
    userSelect: 'text'
  })
  // A long text scrolls instead of the canvas; over a short one the wheel zooms as everywhere.
  face.addEventListener('wheel', (event) => {
    if (face.scrollHeight > face.clientHeight + 1) event.stopPropagation()
  })
  return face
}

/** A line as text, with the addresses of our own texts as links. */
export function withLinks(line) {
  return line.split(OUR_LINKS).map((part, index) => {
    if (index % 2 === 0) return part
    const style = 'color: inherit; text-decoration: underline'
    const link = { href: part, target: '_blank', rel: 'noopener noreferrer', style }
    return element('a', link, part)
  })
}

/** One row for each line, its further rows indented, so that a list of LoRAs reads as one. */
function fill(face, text, head) {
  const style = 'padding-left: 1em; text-indent: -1em; min-height: 1lh'
  const rows = text.split('\n').map((line) => element('div', { style }, ...withLinks(t(line))))
  if (head) rows.unshift(element('strong', {}, head))
  // By a mark, a word and an edge: the colour of the text stays the palette's, which can be read.
  face.style.borderLeft = head ? '4px solid var(--error-text, #f44)' : ''
  if (head) face.setAttribute('role', 'alert')
  else face.removeAttribute('role')
  face.replaceChildren(...rows)
}

/** The height that the text needs at the node's width, measured outside the canvas's layout. */
function textHeight(node, face) {
  const copy = face.cloneNode(true)
  Object.assign(copy.style, {
    position: 'absolute',
    visibility: 'hidden',
    height: 'auto',
    minHeight: '0',
    width: `${node.size[0] - 3 * MARGIN}px`
  })
  document.body.append(copy)
  const height = Math.min(copy.offsetHeight + 2, MAX_HEIGHT)
  copy.remove()
  return height
}

function addTextWidget(node, name) {
  const face = makeFace()
  const widget = node.addDOMWidget(name, 'text_view', face, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => (Number(face.dataset.height) || 24) + 2 * MARGIN,
    getValue: () => [...face.children].map((row) => row.textContent).join('\n'),
    setValue: () => {}
  })
  widget.serialize = false // out of widgets_values, as options.serialize keeps it out of prompts
  return widget
}

/** Show the text on the node, made as tall as that needs, never smaller than it was. */
function showText(node, text, head = '') {
  dropWidget(node, PROGRESS_TEXT)
  const widget = widgetOf(node, NAME) ?? addTextWidget(node, NAME)
  widget.told = text
  fill(widget.element, text, head)
  fit(node, widget)
}

/** Show what a node shows in the page's language of now. */
function showAgain(node) {
  const failure = failures.get(node)
  if (failure) showFailure(node, failure)
  else if (widgetOf(node, NAME)) showText(node, widgetOf(node, NAME).told)
}

/** Keep a text on a node beside its words, with what may be pressed under it. */
export function note(node, name, text, ...controls) {
  const widget = widgetOf(node, name) ?? addTextWidget(node, name)
  widget.options.getMaxHeight = widget.options.getMinHeight
  fill(widget.element, text)
  widget.element.append(...controls)
  fit(node, widget)
}

function fit(node, { element: face }) {
  face.dataset.height = textHeight(node, face)
  face.style.minHeight = `${face.dataset.height}px`
  const needed = node.computeSize()
  node.setSize([node.size[0], Math.max(node.size[1], needed[1])])
  node.setDirtyCanvas?.(true, true)
}

/** Show words on a node of ours, in place of those before; an error of it is over. */
export function say(node, text) {
  settle(node)
  showText(node, text)
}

/** What a node of ours failed with, as long as it shows it; else an empty text. */
export function errorOf(node) {
  return failures.get(node)?.text ?? ''
}

/** The names of the inputs that the error of a node is about, as far as that is known. */
export function errorInputs(node) {
  return failures.get(node)?.inputs ?? []
}

function tell(node) {
  const detail = { node, text: errorOf(node), inputs: errorInputs(node) }
  window.dispatchEvent(new CustomEvent(ERROR_EVENT, { detail }))
}

function settle(node) {
  if (failures.delete(node)) tell(node)
}

/** Show what a node failed with; it goes when the node runs again, or the next run is asked for. */
function showFailure(node, failure) {
  const head = failure.refused ? t('⚠ Not run') : t('⚠ Error')
  failures.set(node, failure)
  showText(node, failure.text, head)
  tell(node)
}

/** Words that are no output of the node go where its outputs are: the page brings them back. */
function keep(node, output) {
  const place = node.graph === app.rootGraph ? `${node.id}` : `${node.graph.id}:${node.id}`
  app.nodeOutputs[place] = { ...app.nodeOutputs[place], text: [], [ERROR]: undefined, ...output }
}

/** A node inside a subgraph is not in sight from outside: what must be read is said by the page. */
function sayOutside(node, text, severity) {
  if (!text || node.graph === app.canvas?.graph) return
  const detail = text.split('\n').map((line) => t(line))
  app.extensionManager?.toast?.add?.({ severity, summary: node.title, detail: detail.join('\n') })
}

function fail(node, text, inputs = [], refused = false) {
  const seen = text.replace(UNSEEN, '\ufffd').slice(0, MAX_TEXT).trim()
  const failure = { text: seen, inputs, refused }
  showFailure(node, failure)
  keep(node, { [ERROR]: failure })
  sayOutside(node, failure.text, 'error')
}

function forget(node) {
  if (errorOf(node)) keep(node, {})
  dropWidget(node, NAME)
  settle(node)
}

/** The inputs of a node that a message of ours begins with: 'LoRA slot 2: ...', 'mode is ...'. */
function inputsNamed(node, message) {
  const [word, number] = message.match(/^LoRA slot (\d)\b|^\w+/) ?? ['']
  const name = number ? `lora_${number}` : word
  return node.inputs?.some((input) => input.name === name) || widgetOf(node, name) ? [name] : []
}

function textOf(output) {
  const text = output?.text
  return (Array.isArray(text) ? text.join('\n') : (text ?? '')).trim()
}

/**
 * The node that an event names: '12:5' is node 5 in the subgraph that node 12 stands for, and
 * '5.0.1' one that node 5 has made.
 */
function runningNode(path) {
  const steps = String(path).split('.')[0].split(':')
  const last = steps.pop()
  let graph = app.rootGraph
  for (const step of steps) graph = graph?.getNodeById(step)?.subgraph
  return graph?.getNodeById(last)
}

function* ourNodes(graph = app.rootGraph, seen = new Set()) {
  if (!graph || seen.has(graph)) return
  seen.add(graph)
  for (const node of graph.nodes) {
    if (isOurs(node)) yield node
    yield* ourNodes(node.subgraph, seen)
  }
}

/**
 * Of an exception the page marks an input of its taker's that happens to be called the same here;
 * the slot that our text names is marked instead.
 */
function moveMark(node, errors, inputs) {
  const wrong = errors.map(({ extra_info: info }) => info?.input_name)
  for (const slot of node.inputs ?? []) {
    if (wrong.includes(slot.name)) slot.hasErrors = false
    if (inputs.includes(slot.name)) slot.hasErrors = true
  }
  node.setDirtyCanvas?.(true, true)
}

/** Why the host did not take the node: its own checks name the input, ours say it in the text. */
function showRefused() {
  const refused = Object.entries(app.lastNodeErrors ?? {})
  for (const [path, { errors }] of refused) {
    const node = runningNode(path)
    if (!isOurs(node)) continue
    const thrown = errors.filter(({ type }) => type?.startsWith('exception_'))
    const named = errors.filter((error) => !thrown.includes(error))
    const texts = [
      ...thrown.map(({ details }) => details),
      ...named.map(({ message, details }) => (details ? `${message}: ${details}` : message))
    ]
    const text = [...new Set(texts)].join('\n')
    const inputs = [
      ...thrown.flatMap(({ details }) => inputsNamed(node, details ?? '')),
      ...named.flatMap(({ extra_info: info }) => info?.input_name ?? [])
    ]
    if (text) fail(node, text, inputs, true)
    if (thrown.length) setTimeout(() => moveMark(node, thrown, inputs)) // after the page's own
  }
  return refused.length > 0
}

let looking = 0

/**
 * No event tells that the host refused a prompt. The page has what it said from when it answers to
 * when the next run is asked for, and that is looked at meanwhile.
 */
function lookForRefusal(end = Date.now() + LOOK_LONGEST_MS) {
  clearTimeout(looking)
  looking = setTimeout(() => {
    if (!showRefused() && Date.now() < end) lookForRefusal(end)
  }, LOOK_MS)
}

/** The node that an output is kept for: '5', or '<id of a subgraph>:5'. */
function outputNode(place) {
  const [id, subgraph] = place.split(':').reverse()
  const graph = subgraph ? app.rootGraph.subgraphs.get(subgraph) : app.rootGraph
  return graph?.getNodeById(id)
}

app.registerExtension({
  name: 'flux2-lora-edit.node-text',
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith(PREFIX)) return
    after(nodeType.prototype, 'onExecuted', function (output) {
      const text = textOf(output)
      if (text) say(this, text)
    })
  },
  onNodeOutputsUpdated(outputs) {
    // The graph was made anew (undo, another tab and back, a run opened from the queue), and the
    // page has put back what its nodes gave.
    for (const [place, output] of Object.entries(outputs)) {
      const [text, failure] = [textOf(output), output?.[ERROR]]
      const node = (text || failure) && outputNode(place)
      if (!isOurs(node)) continue
      if (failure) showFailure(node, failure)
      else say(node, text)
    }
  },
  setup() {
    words.addEventListener('change', () => [...ourNodes()].forEach(showAgain))
    // A node that runs again shows nothing until it has new words.
    api.addEventListener('executing', ({ detail }) => {
      const node = runningNode(detail)
      if (!isOurs(node)) return
      spoken.delete(node)
      forget(node)
    })
    api.addEventListener('progress_text', ({ detail }) => {
      const node = runningNode(detail.nodeId)
      if (!isOurs(node)) return
      spoken.set(node, detail.text)
      say(node, detail.text)
      queueMicrotask(() => dropWidget(node, PROGRESS_TEXT)) // which the page may make after this
    })
    // What a node has said last is all that is known of it when it gives no output.
    api.addEventListener('execution_interrupted', () => {
      for (const node of ourNodes()) {
        const text = spoken.get(node)
        if (!text || !widgetOf(node, NAME)) continue
        keep(node, { text: [text] })
        sayOutside(node, text, 'warn')
      }
    })
    api.addEventListener('execution_error', ({ detail }) => {
      const node = runningNode(detail.node_id)
      const text = detail.exception_message ?? ''
      if (isOurs(node)) fail(node, text, inputsNamed(node, text))
    })
    api.addEventListener('promptQueueing', () => {
      for (const node of ourNodes()) if (errorOf(node)) forget(node)
      lookForRefusal()
    })
    api.addEventListener('promptQueued', () => {
      clearTimeout(looking)
      showRefused() // parts of a prompt may be taken
    })
  }
})
