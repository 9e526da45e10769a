// The stock widgets of a FLUX.2 LoRA Stack, as three slots that are read and written.
//
// ComfyUI's page makes `lora_n` and, by its kind, `lora_n.file` (or `.repo`, `.url`), `.scale` and
// `.enabled`, and removes them when the kind changes. They are what is saved, linked, promoted and
// run; all that is written here goes through their value and their callback, as a hand does it.

import { app } from '../../../../scripts/app.js'
import { after, widgetOf } from '../page.js'

export const STACK = 'Flux2EditLoraStack'
export const APPLY = 'Flux2EditApplyLoraStack'
export const STACK_TYPE = 'LORA_STACK' // of the link between them
export const NONE = 'none'
export const INSTALLED = 'installed'
export const HUB = 'hugging face'
export const URL_KIND = 'url'
export const CHOOSE = 'choose a LoRA' // what the stock list says while no file is chosen
export const SLOTS = [1, 2, 3]
export const MAX_SCALE = 4
const FIELDS = { [INSTALLED]: 'file', [HUB]: 'repo', [URL_KIND]: 'url' }
const IS_SLOT = /^lora_[1-3](\.|$)/
const HUB_FILE = /^https:\/\/(www\.)?(huggingface\.co|hf\.co)\/[^/]+\/[^/]+/i
const REPO = /^[\w.-]+\/[\w.-]+(@[^:\s]+)?(:\S.*)?$/

const nameOf = (number, part) => (part ? `lora_${number}.${part}` : `lora_${number}`)

/** All stock widgets of the slots, in their order. */
export function stockWidgets(node) {
  return (node.widgets ?? []).filter((widget) => IS_SLOT.test(widget.name))
}

/** The number of the slot that a stock widget belongs to. */
export const numberOf = (widget) => Number(widget.name[5])

/** The title of the node that gives a widget its value; '' where that one has none, else null. */
function linkedFrom(node, name) {
  const index = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1
  if (index < 0 || !node.isInputConnected(index)) return null
  try {
    return node.getInputNode(index)?.title ?? '' // a promoted widget comes from no node
  } catch {
    return ''
  }
}

/** A slot as it stands: kind, name (a file, repo or link), scale, enabled; and what is linked. */
export function readSlot(node, number) {
  const value = (part) => widgetOf(node, nameOf(number, part))?.value
  const kind = value() ?? NONE
  const field = FIELDS[kind]
  const links = {}
  for (const part of ['', field, 'scale', 'enabled']) {
    const from = part === undefined ? null : linkedFrom(node, nameOf(number, part))
    if (from !== null) links[part === field ? 'name' : part || 'kind'] = from
  }
  return {
    number,
    kind,
    name: String((field && value(field)) ?? ''),
    scale: Number(value('scale') ?? 1),
    enabled: value('enabled') !== false,
    links,
    linked: Object.keys(links).length > 0
  }
}

/** What the stock widgets hold now, for `unchanged`. */
export function snapshot(node) {
  const { widgets = [] } = node
  const values = []
  widgets.forEach((widget, at) => {
    if (IS_SLOT.test(widget.name)) values.push([at, widget, widget.value])
  })
  return { count: widgets.length, values }
}

/** Whether they hold it still; asked in every frame, and so of the values alone. */
export function unchanged({ widgets }, { count, values }) {
  if (widgets.length !== count) return false
  for (const [at, widget, value] of values)
    if (widgets[at] !== widget || !Object.is(widget.value, value)) return false
  return true
}

function write(node, widget, value) {
  if (!widget || Object.is(widget.value, value)) return
  const before = widget.value
  widget.value = value
  widget.callback?.(value, app.canvas, node, app.canvas?.graph_mouse)
  node.onWidgetChanged?.(widget.name, value, before, widget)
  if (node.graph) node.graph._version++
}

/** Give a slot a kind, name, scale or enabled; what is not named stays, what is linked too. */
export function writeSlot(node, number, { kind, name, scale, enabled }) {
  const links = readSlot(node, number).links
  if (kind !== undefined && !('kind' in links)) write(node, widgetOf(node, nameOf(number)), kind)
  const parts = { scale, enabled, [FIELDS[kind ?? readSlot(node, number).kind]]: name }
  for (const [part, value] of Object.entries(parts)) {
    const widget = value === undefined ? undefined : widgetOf(node, nameOf(number, part))
    if (widget && linkedFrom(node, widget.name) === null) write(node, widget, value)
  }
  app.canvas?.setDirty(true, true)
}

/** Exchange the values of two slots. Not done, and false, where a link enters one of them. */
export function swapSlots(node, one, other) {
  const [first, second] = [readSlot(node, one), readSlot(node, other)]
  if (first.linked || second.linked) return false
  const kept = remembered(node)
  ;[kept[one], kept[other]] = [kept[other], kept[one]]
  writeSlot(node, one, second)
  writeSlot(node, other, first)
  return true
}

export const clampScale = (scale) =>
  Math.round(Math.min(MAX_SCALE, Math.max(-MAX_SCALE, scale)) * 100) / 100

/** The installed names that a slot's list offers; those of the node's own definition else. */
export function installedNames(node, number = 1) {
  let values = widgetOf(node, nameOf(number, 'file'))?.options?.values
  if (typeof values === 'function') values = values()
  if (values) return [...values]
  const { input } = node.constructor.nodeData ?? {}
  const [, { options = [] } = {}] = input?.optional?.[nameOf(number)] ?? []
  const file = options.find((option) => option.key === INSTALLED)?.inputs?.required?.file
  return [...(file?.[1]?.options ?? (Array.isArray(file?.[0]) ? file[0] : []))]
}

/** The kind and name that a typed or pasted text means; null where it means none. */
export function recognise(text, installed = []) {
  const name = text.trim()
  if (/^https?:\/\//i.test(name)) return { kind: HUB_FILE.test(name) ? HUB : URL_KIND, name }
  const alike = (other) => other.replaceAll('\\', '/').toLowerCase()
  const file = installed.find((known) => alike(known) === alike(name))
  if (file) return { kind: INSTALLED, name: file }
  if (/\.safetensors$/i.test(name) && !name.includes(':')) return null
  return REPO.test(name) ? { kind: HUB, name } : null
}

// --- what a slot had under another kind, for as long as the node lives

const memory = new WeakMap()

function remembered(node) {
  if (!memory.has(node)) memory.set(node, {})
  return memory.get(node)
}

/**
 * Keep a slot's file, repo and link, and its scale and switch, when a hand changes its kind, in
 * this list or in the stock widgets; call `changed` after that and after every other change.
 */
export function watchSlots(node, changed) {
  const chained = new WeakSet()
  const last = {} // the widgets of a slot before its kind changed, which the page has removed then

  const chain = (widget, first) => {
    if (!widget || chained.has(widget)) return
    chained.add(widget)
    after(widget, 'callback', () => {
      first()
      look()
      changed()
    })
  }
  const partsOf = (number) => {
    const kind = widgetOf(node, nameOf(number))?.value
    const field = FIELDS[kind]
    const parts = {}
    for (const part of field ? [field, 'scale', 'enabled'] : [])
      parts[part] = widgetOf(node, nameOf(number, part))
    return { kind, parts }
  }
  const kindChanged = (number) => {
    const before = last[number]
    const now = partsOf(number)
    if (!before || before.kind === now.kind) return
    const kept = (remembered(node)[number] ??= {})
    const had = {}
    for (const [part, widget] of Object.entries(before.parts)) if (widget) had[part] = widget.value
    if (before.kind !== NONE) kept[before.kind] = had
    const given = { ...kept[now.kind], ...had } // scale and switch stay with the slot
    for (const [part, widget] of Object.entries(now.parts))
      if (widget && part in given && linkedFrom(node, widget.name) === null)
        write(node, widget, given[part])
  }

  /** To be called whenever the page may have made other widgets. */
  function look() {
    for (const number of SLOTS) {
      const now = partsOf(number)
      last[number] = now
      chain(widgetOf(node, nameOf(number)), () => kindChanged(number))
      for (const widget of Object.values(now.parts)) chain(widget, () => {})
    }
  }
  look()
  return look
}

// --- the stock face, hidden and shown

const SUBGRAPH_INPUT = -10 // the node that stands for a subgraph's inputs

function isPromoted(node, { name }) {
  const index = node.inputs?.findIndex((input) => input.widget?.name === name) ?? -1
  return index >= 0 && node.graph && Number(node.getInputLink?.(index)?.origin_id) === SUBGRAPH_INPUT
}

/**
 * Hide the stock widgets behind the list, or show them.
 *
 * Frontends from 1.58 keep where a widget shows: their side panel goes on offering it. Earlier ones
 * look at `hidden` of the widget (classic) and of its options (Nodes 2.0); neither is enumerable
 * here, so that a copy made of the widget for a subgraph's face is not hidden with it. On the
 * oldest ones that face is no copy, and shows what the widget itself does.
 */
export function showStock(node, shown) {
  let changed = false
  for (const widget of stockWidgets(node)) {
    const surfaces = widget.visibility?.surfaces
    if (surfaces) {
      const tier = shown ? 'shown' : 'never'
      changed ||= surfaces.canvas !== tier
      surfaces.canvas = surfaces.vueNode = tier
      continue
    }
    const seen = shown || isPromoted(node, widget)
    changed ||= Boolean(widget.hidden) === seen
    for (const place of [widget, widget.options]) {
      if (seen) delete place?.hidden
      else if (place)
        Object.defineProperty(place, 'hidden', {
          value: true,
          enumerable: false,
          configurable: true,
          writable: true
        })
    }
  }
  if (changed && node.widgets.length) node.widgets.push(node.widgets.pop()) // Nodes 2.0 looks again
  return changed
}

/** Take down the graph for undo, as the page does after a click on its own widgets. */
export function noteChange() {
  const tracker = app.extensionManager?.workflow?.activeWorkflow?.changeTracker
  const capture = tracker?.captureCanvasState ?? tracker?.checkState
  capture?.call(tracker)
}
