// FLUX.2 LoRA Stack as a list: one row a LoRA, laid over the stock widgets.
//
// The stock widgets stay: they are what is saved, linked, promoted and run, and this list reads and
// writes them (slots.js). It is a DOM widget that no workflow and no prompt holds. Where it
// fails, or is switched off, the stock widgets are shown as ComfyUI makes them.

import { app } from '../../../../scripts/app.js'
import { factsOf, loraFiles } from './files.js'
import { addStack } from './more.js'
import { openPicker } from './picker.js'
import { openInfo, openMenu } from './popups.js'
import { ROW, iconButton, kindNames, makeRow } from './row.js'
import * as slots from './slots.js'
import { ERROR_EVENT, errorInputs, errorOf } from '../node_text.js'
import { addStyle, after, element } from '../page.js'
import { t, words } from '../words.js'

const NAME = 'flux2_edit_lora_list'
const SETTING = 'Flux2LoraEdit.Stack.List'
const WIDTH = 400
const MARGIN = 8 // around the list, on the classic canvas
const HEAD = 24
const LINE = 20 // of a stock widget, in whose middle a link ends
const lists = new Map() // by node, those that are in a graph
const looks = new WeakMap() // by node: to be called when it may have other stock widgets
const stockNodes = new WeakSet() // whose stock widgets a hand asked for
let wanted = true // the setting, which the page tells before it stores it

const STYLE = `
.flux2-lora-list { box-sizing: border-box; overflow: hidden; contain: content; display: flex; flex-direction: column;
  font: 12px/1 system-ui, sans-serif; color: var(--input-text, #ddd);
  background: var(--comfy-input-bg, #222); border-radius: 6px; user-select: none; }
.flux2-lora-list [hidden] { display: none !important; }
.flux2-lora-list button { all: unset; box-sizing: border-box; cursor: pointer; flex: none; }
.flux2-lora-list button:disabled { cursor: default; opacity: .5; }
.flux2-lora-list .head { height: ${HEAD}px; flex: none; display: flex; align-items: center;
  gap: 4px; padding: 0 4px 0 6px; }
.flux2-lora-list .head .said { flex: 1; min-width: 0; overflow: hidden; white-space: nowrap;
  text-overflow: ellipsis; padding-left: 4px; line-height: 1.3; }
.flux2-lora-list .head .add { padding: 0 8px; height: 18px; line-height: 16px; border-radius: 9px;
  border: 1px solid var(--border-color, #666); }
.flux2-lora-list .rows { flex: none; }
.flux2-lora-list .row { box-sizing: border-box; height: ${ROW}px; display: flex; gap: 4px;
  align-items: center; padding: 0 4px; border-top: 1px solid var(--border-color, #4e4e4e);
  outline: none; }
.flux2-lora-list .row:focus-visible, .flux2-lora-list button:focus-visible { box-shadow: inset 0 0 0 2px var(--input-text, #ddd); }
.flux2-lora-list .handle { width: 18px; flex: none; text-align: center; cursor: grab;
  line-height: ${ROW}px; opacity: .75; touch-action: none; }
.flux2-lora-list .toggle { width: 24px; height: 14px; border-radius: 7px; position: relative;
  border: 1px solid currentColor; }
.flux2-lora-list .toggle::after { content: ''; position: absolute; box-sizing: border-box;
  width: 8px; height: 8px; top: 2px; left: 2px; border-radius: 4px; border: 1px solid currentColor; }
.flux2-lora-list .toggle[aria-checked=true] { background: currentColor; }
.flux2-lora-list .toggle[aria-checked=true]::after { left: auto; right: 2px;
  background: var(--comfy-input-bg, #222); }
.flux2-lora-list .toggle[aria-checked=mixed]::after { left: 7px; }
.flux2-lora-list .kind, .flux2-lora-list .info, .flux2-lora-list .remove, .flux2-lora-list .error {
  width: 18px; height: 18px; line-height: 18px; text-align: center; flex: none; }
.flux2-lora-list .info { font: italic bold 12px/16px serif; border-radius: 9px;
  border: 1px solid currentColor; width: 16px; height: 16px; line-height: 14px; opacity: .75; }
.flux2-lora-list .remove { font-size: 15px; opacity: .75; }
.flux2-lora-list .name { flex: 1; min-width: 0; display: flex; height: 20px; line-height: 20px; }
.flux2-lora-list .name span { min-width: 0; overflow: hidden; text-overflow: ellipsis;
  white-space: pre; }
.flux2-lora-list .name .dim { opacity: .72; flex: 0 1000 auto; }
.flux2-lora-list .name .tail { flex: 0 1 auto; }
.flux2-lora-list .name .end { flex: none; }
.flux2-lora-list .scale { flex: none; display: flex; align-items: center; width: 76px; }
.flux2-lora-list .scale button { width: 14px; height: 20px; line-height: 20px; text-align: center; }
.flux2-lora-list .value { width: 48px; height: 20px; line-height: 20px; text-align: center;
  cursor: ew-resize; font-variant-numeric: tabular-nums; touch-action: none; }
.flux2-lora-list .field { all: unset; box-sizing: border-box; height: 20px; padding: 0 3px;
  background: var(--comfy-menu-bg, #353535); color: var(--input-text, #ddd); border-radius: 3px;
  box-shadow: inset 0 0 0 1px currentColor; user-select: text; flex: 1; min-width: 0; }
.flux2-lora-list .scale .field { flex: none; width: 48px; text-align: center; }
.flux2-lora-list .off :is(.dim, .tail, .end, .scale) { opacity: .72; }
.flux2-lora-list .failed { border: 1px dashed var(--error-text, #ff4444); }
.flux2-lora-list .error { color: var(--comfy-input-bg, #222); background: var(--input-text, #ddd);
  border-radius: 3px; width: 16px; height: 16px; font: bold 14px/16px system-ui, sans-serif;
  cursor: help; }
.flux2-lora-list .target { border-top: 3px solid var(--input-text, #ddd); }
.flux2-lora-list .dragged { opacity: .5; }
`

const asList = (node) => wanted && looks.has(node) && !stockNodes.has(node)

/** What the node failed with, where it is about a slot. */
function wrongWith(node, number) {
  const text = errorOf(node)
  const about = errorInputs(node).some((name) => name.split('.')[0] === `lora_${number}`)
  return about || text.includes(`LoRA slot ${number}`) ? text : ''
}

function makeList(node) {
  const rows = slots.SLOTS.map((number) => makeRow(number, wishes(number)))
  const rowBox = element('div', { className: 'rows' }, ...rows.map((row) => row.element))
  rowBox.setAttribute('role', 'list')
  rowBox.ariaLabel = t('LoRAs')
  const all = iconButton('toggle', '', t('All on or off'), toggleAll, 0)
  all.setAttribute('role', 'checkbox')
  const said = element('span', { className: 'said' })
  const add = iconButton('add', '', t('Add a LoRA'), addLora, 0)
  const link = iconButton('add', t('+ link'), t('Add from Hugging Face or a link'), addLink, 0)
  const head = element('div', { className: 'head' }, all, said, link, add)
  const face = element('div', { className: 'flux2-lora-list' }, head, rowBox)
  face.setAttribute('role', 'group')
  face.ariaLabel = t('LoRAs of this stack')
  const misfits = {}
  let seen = null
  let counted = -1
  let placed = null
  let drafted = 0 // a slot whose repo or link is being typed for the first time

  const read = (number) => slots.readSlot(node, number)
  const used = () => slots.SLOTS.filter((number) => shown(read(number)))
  const shown = (slot) => slot.kind !== slots.NONE || 'kind' in slot.links || slot.number === drafted
  const free = () => slots.SLOTS.find((number) => !shown(read(number)))
  const rowOf = (number) => rows[number - 1]
  function write(number, values, done = true) {
    slots.writeSlot(node, number, values)
    sync()
    if (done) slots.noteChange()
  }

  function addLora() {
    const number = free()
    if (!number) return addStack(node)
    choose(number, add, '')
  }
  function choose(number, anchor, value) {
    openPicker({
      node,
      anchor,
      value,
      onPick(name) {
        if (!name) return read(number).linked || write(number, { kind: slots.NONE })
        const fresh = read(number).kind === slots.NONE ? { scale: 1, enabled: true } : {}
        write(number, { kind: slots.INSTALLED, name, ...fresh })
        rowOf(number).element.focus({ preventScroll: true })
      }
    })
  }
  function addLink() {
    const number = free()
    if (!number) return addStack(node)
    drafted = number
    sync()
    typeName(number, '')
  }
  /** Take a typed or pasted name for what it is: a repo, a link, or an installed file. */
  function take(number, text) {
    const found = slots.recognise(text, slots.installedNames(node))
    const { kind } = read(number)
    const fresh = kind === slots.NONE ? { scale: 1, enabled: true } : {}
    if (found) write(number, { ...found, ...fresh })
    else if (kind !== slots.NONE && kind !== slots.INSTALLED) write(number, { name: text.trim() })
    else if (text.trim()) write(number, { kind: slots.HUB, name: text.trim(), ...fresh })
  }
  function typeName(number, text) {
    rowOf(number).typeName(text, (typed) => {
      drafted = 0
      if (typed !== null && typed !== text) take(number, typed)
      sync()
    })
  }

  function wishes(number) {
    const self = () => read(number)
    const wants = {
      toggle: () => {
        if (!('enabled' in self().links)) write(number, { enabled: !self().enabled })
      },
      scale: (scale, done) => write(number, { scale }, done),
      pick() {
        const { kind, name, links } = self()
        if ('name' in links || 'kind' in links) return
        if (kind === slots.INSTALLED) choose(number, rowOf(number).element, name)
        else typeName(number, name)
      },
      info: () => openInfo(node, rowOf(number).element, self()),
      remove() {
        if (self().linked) return
        wants.focus(1) || wants.focus(-1) || add.focus({ preventScroll: true })
        write(number, { kind: slots.NONE })
      },
      move(by) {
        const order = used()
        const to = order[order.indexOf(number) + by]
        if (to && slots.swapSlots(node, number, to)) {
          sync()
          slots.noteChange()
          rowOf(to).element.focus({ preventScroll: true })
        }
      },
      focus(by) {
        const order = used()
        const to = order[order.indexOf(number) + by]
        if (to) rowOf(to).element.focus({ preventScroll: true })
        return Boolean(to)
      },
      leave() {
        rowOf(number).element.blur()
        app.canvas?.canvas?.focus?.({ preventScroll: true })
      },
      kind(event) {
        openMenu(event.currentTarget, kindEntries())
      },
      menu() {
        const { enabled, linked } = self()
        const order = used()
        openMenu(rowOf(number).element, [
          { label: enabled ? t('Switch off') : t('Switch on'), act: wants.toggle },
          { label: t('Move up'), act: () => wants.move(-1), off: linked || order[0] === number },
          { label: t('Move down'), act: () => wants.move(1), off: linked || order.at(-1) === number },
          ...kindEntries(),
          { label: t('Base, rank and trigger words'), act: wants.info },
          { label: t('Remove'), act: wants.remove, off: linked },
          { label: t('Show all widgets'), act: () => showWidgets(node, true) }
        ])
      }
    }
    const kindEntries = () =>
      Object.entries(kindNames()).map(([kind, label]) => ({
        label,
        checked: self().kind === kind,
        off: 'kind' in self().links,
        act: () => {
          if (self().kind !== kind) write(number, { kind })
        }
      }))
    return wants
  }

  function toggleAll() {
    const numbers = used().filter((number) => !('enabled' in read(number).links))
    const enabled = !numbers.every((number) => read(number).enabled)
    for (const number of numbers) slots.writeSlot(node, number, { enabled })
    sync()
    slots.noteChange()
  }

  function render() {
    const order = used()
    const on = order.filter((number) => read(number).enabled).length
    for (const number of slots.SLOTS) {
      const row = rowOf(number)
      row.element.hidden = !order.includes(number)
      if (row.element.hidden) continue
      const slot = read(number)
      row.show(slot, { words: wrongWith(node, number), misfit: misfits[number] })
    }
    markMisfits()
    const state = on === 0 ? 'false' : on === order.length ? 'true' : 'mixed'
    all.setAttribute('aria-checked', state)
    all.hidden = !order.length
    said.textContent = order.length ? t(`${on} of ${order.length} on`) : t('No LoRA yet')
    const full = order.length === slots.SLOTS.length
    add.textContent = full ? t('+ Stack') : t('+ LoRA')
    add.title = full
      ? t('More than three: a second Stack with its own Apply behind this one')
      : t('Add an installed LoRA')
    add.ariaLabel = add.title
    link.hidden = full
  }
  /** Mark the files that were trained for another model than the connected one, once known. */
  async function markMisfits() {
    const listed = used().map(read)
    const installed = listed.some(({ kind }) => kind === slots.INSTALLED)
    const files = installed ? await loraFiles(node) : [] // one walk through the graph for all
    for (const { number, kind, name } of listed) {
      const facts = kind === slots.INSTALLED ? factsOf(name, files) : null
      const found = facts?.fits === false ? t(`It was trained for ${facts.base}.`) : ''
      const slot = read(number)
      if (slot.kind !== kind || slot.name !== name || found === (misfits[number] ?? '')) continue
      misfits[number] = found
      rowOf(number).show(slot, { words: wrongWith(node, number), misfit: found })
    }
  }

  /** Bring the list to what the stock widgets say, and them out of sight. */
  function bring() {
    if (lists.get(node)?.face !== face) return // it has failed meanwhile
    looks.get(node)()
    const hidden = slots.showStock(node, false)
    render()
    const before = counted
    counted = used().length
    face.style.minHeight = `${height()}px`
    if (hidden || counted !== before) fitNode(node, before >= 0)
    placed = null
    seen = slots.snapshot(node)
  }
  const sync = () => guard(node, bring)
  const height = () => HEAD + ROW * Math.max(0, counted)

  /** Where links into hidden widgets end: at the row of their slot. */
  function placeLinks(top) {
    const order = used()
    for (const widget of slots.stockWidgets(node)) {
      const at = Math.max(0, order.indexOf(slots.numberOf(widget)))
      widget.y = top + HEAD + at * ROW + (ROW - LINE) / 2
    }
  }

  dragRows(rows, (from, to) => {
    // One exchange after another, so that the rows between keep their order.
    const order = used()
    const way = Math.sign(to - from)
    for (let at = from; at !== to; at += way) slots.swapSlots(node, order[at], order[at + way])
    sync()
    slots.noteChange()
    rowOf(order[to]).element.focus({ preventScroll: true })
  })
  face.addEventListener('paste', (event) => {
    const text = event.clipboardData?.getData('text') ?? ''
    const number = Number(event.target.closest?.('.row')?.dataset.slot) || free()
    if (!number || !slots.recognise(text, slots.installedNames(node))) return
    event.preventDefault()
    event.stopPropagation() // the page would look for nodes in it
    take(number, text)
  })
  for (const name of ['keydown', 'keyup'])
    head.addEventListener(name, (event) => {
      if ([' ', 'Enter', 'Delete', 'Backspace'].includes(event.key)) event.stopPropagation()
    })
  return {
    face,
    sync,
    markMisfits,
    height,
    /** Cheap: asked whenever the canvas is drawn. */
    check() {
      if (seen === null) return
      if (!slots.unchanged(node, seen)) sync()
      const { y } = this.widget
      if (y !== placed) placeLinks(y + (globalThis.LiteGraph?.vueNodesMode ? 0 : MARGIN))
      placed = y
    }
  }
}

/** Drag a row by its number to the place of another. Places are read once, when it begins. */
function dragRows(rows, moved) {
  rows.forEach(({ handle, element: row }) => {
    handle.title = t('Drag to another place, or Alt and an arrow key')
    handle.addEventListener('pointerdown', (event) => {
      if (event.button !== 0) return
      event.preventDefault()
      row.focus({ preventScroll: true })
      const shown = rows.map((other) => other.element).filter((other) => !other.hidden)
      const boxes = shown.map((other) => other.getBoundingClientRect())
      const from = shown.indexOf(row)
      let to = from
      handle.setPointerCapture(event.pointerId)
      row.classList.add('dragged')
      const move = ({ clientY }) => {
        const under = boxes.findIndex((box) => clientY < box.bottom)
        to = under < 0 ? shown.length - 1 : under
        shown.forEach((other, at) => other.classList.toggle('target', at === to && to !== from))
      }
      const end = ({ type }) => {
        handle.removeEventListener('pointermove', move)
        for (const name of ['pointerup', 'pointercancel']) handle.removeEventListener(name, end)
        shown.forEach((other) => other.classList.remove('target', 'dragged'))
        if (type === 'pointerup' && to !== from) moved(from, to)
      }
      handle.addEventListener('pointermove', move)
      for (const name of ['pointerup', 'pointercancel']) handle.addEventListener(name, end)
    })
  })
}

/** As tall as its widgets need, as the page does when a slot's kind changes. */
function fitNode(node, exactly) {
  const needed = node.computeSize()
  node.setSize([node.size[0], exactly ? needed[1] : Math.max(node.size[1], needed[1])])
  node.setDirtyCanvas?.(true, true)
}

function addList(node) {
  const list = makeList(node)
  const widget = node.addDOMWidget(NAME, 'lora_list', list.face, {
    serialize: false,
    hideInPanel: true, // there it would be taken off the node
    margin: MARGIN,
    getMinHeight: () => list.height() + 2 * MARGIN,
    getValue: () => '',
    setValue: () => {},
    onDraw: () => guard(node, () => list.check())
  })
  widget.serialize = false // out of widgets_values, as options.serialize keeps it out of prompts
  list.widget = widget
  return list
}

function removeList(node) {
  const { widget } = lists.get(node) ?? {}
  lists.delete(node)
  if (widget) {
    widget.onRemove?.()
    widget.element.remove()
    node.widgets.splice(node.widgets.indexOf(widget), 1)
  }
  slots.showStock(node, true)
}

/** Whatever fails in the list, the stock widgets are there. */
function guard(node, act) {
  try {
    return act()
  } catch (error) {
    console.warn('FLUX.2 LoRA Edit: the LoRA list failed; the stock widgets are shown.', error)
    stockNodes.add(node)
    removeList(node)
    fitNode(node, false)
  }
}

/** The list where it is wanted, the stock widgets where it is not or cannot be. */
function dress(node) {
  guard(node, () => {
    if (!asList(node)) {
      if (lists.has(node)) removeList(node)
      return
    }
    if (!lists.has(node)) lists.set(node, addList(node))
    lists.get(node).sync()
  })
}

function showWidgets(node, stock) {
  if (stock) stockNodes.add(node)
  else stockNodes.delete(node)
  dress(node)
  fitNode(node, true)
}

const whenIdle = globalThis.requestIdleCallback ?? ((act) => setTimeout(act, 200))

function stacksOf(graph) {
  return (graph?._nodes ?? graph?.nodes ?? []).flatMap((node) => [
    ...(node.comfyClass === slots.STACK ? [node] : []),
    ...(node.subgraph ? stacksOf(node.subgraph) : [])
  ])
}

app.registerExtension({
  name: 'flux2-lora-edit.lora-list',
  settings: [
    {
      id: SETTING,
      category: ['FLUX.2 LoRA Edit', 'LoRA Stack', 'List'],
      name: 'Show FLUX.2 LoRA Stack as a list',
      tooltip: 'One row a LoRA. Off: the stock widgets. Workflows are the same either way.',
      type: 'boolean',
      defaultValue: true,
      onChange(value) {
        wanted = value !== false
        for (const node of stacksOf(app.rootGraph ?? app.graph)) redress(node)
      }
    }
  ],
  nodeCreated(node) {
    if (node.comfyClass !== slots.STACK) return
    addStyle(NAME, STYLE)
    const sync = () => lists.get(node)?.sync()
    guard(node, () => looks.set(node, slots.watchSlots(node, sync)))
    node.size[0] = Math.max(node.size[0], WIDTH) // a loaded node takes its own size after this
    dress(node)
    fitNode(node, true)
    after(node, 'onConfigure', function (saved) {
      guard(node, () => looks.get(node)())
      dress(node)
      // The page has just fitted it to the stock widgets.
      if (saved?.size && lists.has(node))
        node.setSize([saved.size[0], Math.max(saved.size[1], node.computeSize()[1])])
    })
    after(node, 'onConnectionsChange', sync)
    after(node, 'onRemoved', () => lists.delete(node))
    after(node, 'onAdded', () => dress(node))
  },
  getNodeMenuItems(node) {
    if (node.comfyClass !== slots.STACK) return []
    const listed = lists.has(node)
    const content = listed ? t('Show all widgets') : t('Show the LoRA list')
    return [{ content, callback: () => showWidgets(node, listed) }]
  },
  setup() {
    const checkAll = () => lists.forEach((list, node) => guard(node, () => list.check()))
    let version
    after(app.canvas, 'onDrawForeground', () => {
      if (!lists.size) return
      // In Nodes 2.0 widgets are not drawn; the canvas under them is, whenever the graph changes.
      if (globalThis.LiteGraph?.vueNodesMode) checkAll()
      if (version === app.canvas.graph?._version) return
      version = app.canvas.graph?._version
      // Another model may be connected now.
      whenIdle(() => lists.forEach((list) => list.markMisfits()))
    })
    window.addEventListener(ERROR_EVENT, ({ detail }) => lists.get(detail?.node)?.sync())
    words.addEventListener('change', () => lists.forEach((list) => list.sync()))
  }
})

function redress(node) {
  dress(node)
  fitNode(node, true)
}
