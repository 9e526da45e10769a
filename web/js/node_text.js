// The words a node says after its run (matched LoRA modules, effective size, cost), kept on it.
//
// Everything works without this file: the same words are in the node's ui output and in the log.
// The host's own progress text does not keep them: frontends from 1.58 remove it when the run ends,
// and earlier ones show two lines of it. A DOM widget shows on the classic canvas and in Nodes 2.0,
// and stays out of saved workflows and prompts.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'

const PREFIX = 'Flux2Edit'
const NAME = 'flux2_edit_text'
const PROGRESS_TEXT = '$$node-text-preview' // the host's name for the text it shows during a run
const MARGIN = 10 // what the classic canvas leaves free around a DOM widget
const MAX_HEIGHT = 260

const isOurs = (node) => node?.comfyClass?.startsWith(PREFIX)
const findWidget = (node, name) => node.widgets?.find((widget) => widget.name === name)

function dropWidget(node, name) {
  const widget = findWidget(node, name)
  if (!widget) return
  widget.onRemove?.()
  node.widgets.splice(node.widgets.indexOf(widget), 1)
}

function makeElement() {
  const element = document.createElement('div')
  element.className = 'flux2-edit-text'
  Object.assign(element.style, {
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
  element.addEventListener('wheel', (event) => {
    if (element.scrollHeight > element.clientHeight + 1) event.stopPropagation()
  })
  return element
}

/** One row for each line, its further rows indented, so that a list of LoRAs reads as one. */
function fill(element, text) {
  const rows = text.split('\n').map((line) => {
    const row = document.createElement('div')
    Object.assign(row.style, { paddingLeft: '1em', textIndent: '-1em', minHeight: '1lh' })
    row.textContent = line
    return row
  })
  element.replaceChildren(...rows)
}

/** The height that the text needs at the node's width, measured outside the canvas's layout. */
function textHeight(node, element) {
  const copy = element.cloneNode(true)
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

function addTextWidget(node) {
  const element = makeElement()
  const widget = node.addDOMWidget(NAME, 'text_view', element, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: () => (Number(element.dataset.height) || 24) + 2 * MARGIN,
    getValue: () => [...element.children].map((row) => row.textContent).join('\n'),
    setValue: () => {}
  })
  widget.serialize = false // out of widgets_values, as options.serialize keeps it out of prompts
  return widget
}

/** Show the text on the node, and make the node as tall as that needs, never smaller than it was. */
function showText(node, text) {
  dropWidget(node, PROGRESS_TEXT)
  const widget = findWidget(node, NAME) ?? addTextWidget(node)
  const { element } = widget
  fill(element, text)
  element.dataset.height = textHeight(node, element)
  element.style.minHeight = `${element.dataset.height}px`
  const needed = node.computeSize()
  node.setSize([node.size[0], Math.max(node.size[1], needed[1])])
  node.setDirtyCanvas?.(true, true)
}

function textOf(output) {
  const text = output?.text
  return (Array.isArray(text) ? text.join('\n') : (text ?? '')).trim()
}

/** The node that an event names: '12:5' is node 5 in the subgraph that node 12 stands for. */
function runningNode(path) {
  const steps = String(path).split(':')
  const last = steps.pop()
  let graph = app.rootGraph
  for (const step of steps) graph = graph?.getNodeById(step)?.subgraph
  return graph?.getNodeById(last)
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
    const onExecuted = nodeType.prototype.onExecuted
    nodeType.prototype.onExecuted = function (output) {
      onExecuted?.apply(this, arguments)
      const text = textOf(output)
      if (text) showText(this, text)
    }
  },
  onNodeOutputsUpdated(outputs) {
    // The graph was made anew (undo, another tab and back, a run opened from the queue), and the
    // page has put back what its nodes gave.
    for (const [place, output] of Object.entries(outputs)) {
      const text = textOf(output)
      const node = text && outputNode(place)
      if (isOurs(node)) showText(node, text)
    }
  },
  setup() {
    // A node that runs again shows the host's progress text alone until it has its new words.
    api.addEventListener('executing', ({ detail }) => {
      const node = runningNode(detail)
      if (isOurs(node)) dropWidget(node, NAME)
    })
  }
})
