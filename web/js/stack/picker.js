// The LoRA picker: a searchable list of the installed files that says which fit the model.
//
// It opens at an element, over the page, and gives a name back. Whoever opens it sets the stock
// widget; without it the stock widget's own list is there.

import { loraList } from './files.js'
import { shortName } from './row.js'
import { INSTALLED, installedNames } from './slots.js'
import { addStyle, element } from '../page.js'
import { t } from '../words.js'

const ROW = 52 // pixels, all alike: only the rows in sight are made
const SPARE = 4
const WIDTH = 640
const HEIGHT = 480

const STYLE = `
.flux2-edit-picker { position: fixed; z-index: 9999; display: flex; flex-direction: column;
  box-sizing: border-box; overflow: hidden; border-radius: 8px;
  border: 1px solid var(--border-color, #4e4e4e); background: var(--comfy-menu-bg, #353535);
  color: var(--input-text, #ddd); font: 13px/1.35 system-ui, sans-serif;
  box-shadow: 0 8px 32px rgb(0 0 0 / 0.5) }
.flux2-edit-picker input { margin: 8px; padding: 8px 10px; font: inherit; border-radius: 6px;
  color: inherit; background: var(--comfy-input-bg, #222);
  border: 1px solid var(--border-color, #4e4e4e) }
.flux2-edit-picker input:focus-visible { outline: 2px solid var(--p-primary-color, #5b9dff) }
.flux2-edit-picker-said { padding: 0 12px 6px; opacity: 0.8; overflow-wrap: anywhere }
.flux2-edit-picker-list { position: relative; flex: 1; min-height: ${ROW}px; overflow: auto;
  border-top: 1px solid var(--border-color, #4e4e4e) }
.flux2-edit-picker-row { position: absolute; left: 0; right: 0; height: ${ROW}px; display: flex;
  align-items: center; gap: 10px; box-sizing: border-box; padding: 0 12px; cursor: pointer }
.flux2-edit-picker-row[aria-selected="true"] { background: var(--comfy-input-bg, #222);
  box-shadow: inset 3px 0 var(--p-primary-color, #5b9dff) }
.flux2-edit-picker-picture { flex: none; width: 42px; height: 42px; border-radius: 4px;
  object-fit: cover; background: var(--comfy-input-bg, #222) }
.flux2-edit-picker-plain .flux2-edit-picker-picture { display: none }
.flux2-edit-picker-row[data-fits="false"] b { opacity: 0.65 }
.flux2-edit-picker-row > div { min-width: 0; flex: 1 }
.flux2-edit-picker-row div > div { overflow: hidden; white-space: nowrap; text-overflow: ellipsis }
.flux2-edit-picker-folder { opacity: 0.6 }
.flux2-edit-picker-facts { opacity: 0.85; font-size: 12px }
.flux2-edit-picker-name { display: flex }
.flux2-edit-picker-name > * { overflow: hidden; text-overflow: ellipsis }
.flux2-edit-picker-name > :first-child { flex: 0 100 auto }
`

let close = () => {} // of the picker that is open

/** The names that the stock widget offers: what there is to choose where nothing else is known. */
function stockNames(node) {
  const names = node ? installedNames(node) : []
  return names.filter((name) => /\.safetensors$/i.test(name)).map((name) => ({ name }))
}

/** Whether it fits, in words: a colour alone tells not everybody. */
function verdict({ base, fits }, model) {
  if (base === 'cannot be read') return t('✕ damaged: cannot be read')
  if (!model || fits == null) return base ? t(base === 'unknown' ? 'base unknown' : base) : ''
  return fits ? t(`✓ fits (${base})`) : t(`✕ does not fit (${base})`)
}

/** A text as it is searched: neither case nor the kind of slash counts. */
const plain = (text) => text.toLowerCase().replaceAll('\\', '/')

/** The files that have every word somewhere: in the path, the base or the trigger words. */
function search(files, typed) {
  const words = plain(typed).split(/\s+/).filter(Boolean)
  return files.filter(({ name, base, trigger_words: triggers }) => {
    const all = plain([name, base, ...(triggers ?? [])].join(' '))
    return words.every((word) => all.includes(word))
  })
}

function rowOf(file, model) {
  const row = element('div', { className: 'flux2-edit-picker-row' })
  row.role = 'option'
  row.dataset.fits = String(file.fits)
  if (!file.name) {
    row.append(t('None: leave this slot empty'))
    return row
  }
  const picture = file.preview
    ? element('img', { alt: '', loading: 'lazy', decoding: 'async', src: file.preview })
    : element('span')
  picture.className = 'flux2-edit-picker-picture'
  picture.addEventListener('error', () => picture.removeAttribute('src'))
  const facts = [
    verdict(file, model),
    file.rank ? t(`rank ${file.rank}`) : '',
    (file.trigger_words ?? []).join(', ')
  ]
  const { dim, tail } = shortName(INSTALLED, file.name)
  row.append(
    picture,
    element(
      'div',
      {},
      element(
        'div',
        { className: 'flux2-edit-picker-name', title: file.name },
        element('span', { className: 'flux2-edit-picker-folder' }, dim),
        element('b', {}, tail)
      ),
      element('div', {
        className: 'flux2-edit-picker-facts',
        textContent: facts.filter(Boolean).join(' · ')
      })
    )
  )
  return row
}

/** Place it under the anchor, or over it where there is more room. */
function place(dialog, anchor) {
  const at = anchor.getBoundingClientRect()
  const width = Math.min(WIDTH, innerWidth - 16)
  const under = innerHeight - at.bottom - 12
  const over = at.top - 12
  const below = under >= Math.min(HEIGHT, over)
  const height = Math.max(Math.min(HEIGHT, below ? under : over), Math.min(240, innerHeight - 16))
  const top = below ? at.bottom + 4 : at.top - height - 4
  Object.assign(dialog.style, {
    width: `${width}px`,
    height: `${height}px`,
    left: `${Math.min(Math.max(8, at.left), innerWidth - width - 8)}px`,
    top: `${Math.min(Math.max(8, top), innerHeight - height - 8)}px`
  })
}

/**
 * Opens the list at the element `anchor`, on the file `value`. `onPick(name)` is called once with
 * the name chosen, '' for none, and never where the list is closed.
 */
export function openPicker({ node, anchor, value = '', onPick }) {
  close()
  addStyle('flux2-edit-picker-style', STYLE)
  const none = { name: '' }
  let files = stockNames(node)
  let model = ''
  let shown = []
  let active = 0
  let moved = false // by a hand, while the files were read
  let ended = false

  const said = element('div', { className: 'flux2-edit-picker-said', ariaLive: 'polite' })
  const field = element('input', {
    type: 'text',
    autocomplete: 'off',
    spellcheck: false,
    placeholder: t('Search: any part of the path, the base or the trigger words'),
    ariaLabel: t('Search the installed LoRAs')
  })
  const space = element('div')
  const list = element('div', { className: 'flux2-edit-picker-list' }, space)
  const dialog = element('div', { className: 'flux2-edit-picker' }, field, said, list)
  dialog.role = 'dialog'
  dialog.tabIndex = -1 // where a click on the scroll bar puts the focus
  dialog.ariaLabel = t('Choose a LoRA')
  list.role = 'listbox'
  list.id = 'flux2-edit-picker-list'
  field.role = 'combobox'
  field.ariaExpanded = 'true'
  field.setAttribute('aria-controls', list.id)

  function draw() {
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - SPARE)
    const last = Math.ceil((list.scrollTop + list.clientHeight) / ROW) + SPARE
    const rows = []
    for (let at = first; at < Math.min(last, shown.length); at++) {
      const row = rowOf(shown[at], model)
      row.id = `flux2-edit-picker-row-${at}`
      row.style.top = `${at * ROW}px`
      row.ariaSelected = String(at === active)
      row.ariaSetSize = String(shown.length)
      row.ariaPosInSet = String(at + 1)
      row.dataset.at = at
      rows.push(row)
    }
    list.replaceChildren(space, ...rows)
    field.setAttribute('aria-activedescendant', `flux2-edit-picker-row-${active}`)
  }

  /** Make a row the active one, and bring it into sight. */
  function go(to) {
    active = Math.max(0, Math.min(shown.length - 1, to))
    const top = active * ROW
    space.style.height = `${shown.length * ROW}px` // or it could not be scrolled there
    if (top < list.scrollTop) list.scrollTop = top
    if (top + ROW > list.scrollTop + list.clientHeight)
      list.scrollTop = top + ROW - list.clientHeight
    draw()
  }

  /** Show what matches, on the file of that name or else on the first one. */
  function find(name = '') {
    const found = search(files, field.value)
    shown = field.value.trim() ? found : [none, ...found]
    said.textContent = words(found)
    list.classList.toggle('flux2-edit-picker-plain', !files.some((file) => file.preview))
    const at = shown.findIndex((file) => file.name && file.name === name)
    go(at >= 0 ? at : shown[0] === none && shown.length > 1 ? 1 : 0)
  }

  function words(found) {
    const some = found.length
    const all = files.length
    if (!all) return t('There is no .safetensors file in the loras folders.')
    if (!some) return t('No LoRA has all these words in its path, base or trigger words.')
    if (model) return t(`${some} of ${all} LoRAs, those for ${model} first`)
    return t(`${some} of ${all} LoRAs. Which of them fit is told once a model is connected.`)
  }

  function end(back = true) {
    if (ended) return
    ended = true
    close = () => {}
    document.removeEventListener('pointerdown', outside, true)
    document.removeEventListener('wheel', outside, true)
    dialog.remove()
    if (back && anchor.isConnected) anchor.focus?.({ preventScroll: true })
  }

  function pick(file) {
    if (!file || ended) return
    end()
    onPick(file.name)
  }

  function outside(event) {
    if (!dialog.contains(event.target)) end()
  }

  field.addEventListener('input', () => find())
  dialog.addEventListener('keydown', (event) => {
    event.stopPropagation() // ComfyUI's own keys
    const page = Math.max(1, Math.floor(list.clientHeight / ROW) - 1)
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page }
    if (event.isComposing) return // the Enter that ends a Japanese word
    moved ||= event.key in steps
    if (event.key in steps) go(active + steps[event.key])
    else if (event.key === 'Enter') pick(shown[active])
    else if (event.key === 'Escape' || event.key === 'Tab') end()
    else return
    event.preventDefault()
  })
  for (const kind of ['keyup', 'wheel', 'pointerdown', 'copy', 'paste', 'cut'])
    dialog.addEventListener(kind, (event) => event.stopPropagation())
  list.addEventListener('scroll', draw)
  list.addEventListener('mousedown', (event) => {
    if (event.target !== list) event.preventDefault() // the field keeps the focus
  })
  list.addEventListener('click', (event) => {
    const row = event.target.closest('[data-at]')
    if (row) pick(shown[Number(row.dataset.at)])
  })
  document.addEventListener('pointerdown', outside, true)
  document.addEventListener('wheel', outside, true)
  close = () => end(false)

  document.body.append(dialog)
  place(dialog, anchor)
  find(value)
  field.focus({ preventScroll: true })
  said.textContent = t('Reading what the files say of themselves…')
  loraList(node, true).then((answer) => {
    if (ended) return
    if (answer.files.length) ({ files, model } = answer)
    find(moved ? shown[active]?.name : value)
  })
}
