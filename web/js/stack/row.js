// One row of the LoRA list: what it shows, and what mouse and keys do to it.
//
// A row knows no widgets: it is given a slot as `readSlot` reads it, and says what is wanted of it.

import { CHOOSE, MAX_SCALE, HUB, INSTALLED, URL_KIND, clampScale } from './slots.js'
import { element } from '../page.js'
import { t } from '../words.js'

export const ROW = 26
const STEP = 0.05
const FINE = 0.01
const PIXELS_A_STEP = 4
const END = 8 // letters of a name's end that stay in view
const DRAG = 3 // pixels that a click may move
const MARKS = { [INSTALLED]: '▤', [HUB]: '⌂', [URL_KIND]: '↗' }

/** A button that the mouse uses; keys act on the whole row instead. */
export function iconButton(className, sign, label, action, tabIndex = -1) {
  const button = element('button', {
    type: 'button',
    className,
    textContent: sign,
    title: label,
    ariaLabel: label,
    tabIndex
  })
  button.addEventListener('click', (event) => action(event))
  return button
}

export const kindNames = () => ({
  [INSTALLED]: t('Installed file'),
  [HUB]: t('Hugging Face'),
  [URL_KIND]: t('Link')
})

/** A name in two parts: where it comes from, which is dimmed, and the tail that tells. */
export function shortName(kind, name) {
  if (!name || name === CHOOSE) return { dim: '', tail: '' }
  const text = name.replaceAll('\\', '/')
  if (kind !== INSTALLED) {
    const [, site = '', path = text] = text.match(/^https?:\/\/([^/]+)\/(.*)$/i) ?? []
    const clean = path.split(/[?#]/)[0].replace(/\/(blob|resolve)\/[^/]+\//, '/')
    const cut = clean.search(/[/:][^/:]*$/)
    const tail = clean.slice(cut + 1) || clean
    const dim = [site, clean.slice(0, cut + 1)].filter(Boolean).join('/')
    return { dim, tail: tail.replace(/\.safetensors$/i, '') }
  }
  const cut = text.lastIndexOf('/') + 1
  return { dim: text.slice(0, cut), tail: text.slice(cut).replace(/\.safetensors$/i, '') }
}

const written = (scale) =>
  Number.isInteger(Math.round(scale * 1e6) / 1e4) ? scale.toFixed(2) : String(scale)

/**
 * A row. `wants` is told of: toggle, scale(value, done), pick, kind(event), info, menu(event),
 * remove, move(by), focus(by), leave.
 */
export function makeRow(number, wants) {
  const handle = element('span', { className: 'handle', textContent: String(number) })
  const toggle = iconButton('toggle', '', t('On or off'), wants.toggle)
  toggle.setAttribute('role', 'switch')
  const kind = iconButton('kind', '', t('Where it comes from'), (event) => wants.kind(event))
  const [dim, tail, end] = ['dim', 'tail', 'end'].map((className) => element('span', { className }))
  const name = element('button', { type: 'button', className: 'name', tabIndex: -1 }, dim, tail, end)
  name.addEventListener('click', () => wants.pick())
  const error = element('span', { className: 'error', hidden: true })
  const less = iconButton('less', '◂', t('Less'), (event) => step(-1, event))
  const more = iconButton('more', '▸', t('More'), (event) => step(1, event))
  const value = element('span', { className: 'value', tabIndex: -1 })
  value.setAttribute('role', 'spinbutton')
  value.setAttribute('aria-valuemin', -MAX_SCALE)
  value.setAttribute('aria-valuemax', MAX_SCALE)
  const scale = element('span', { className: 'scale' }, less, value, more)
  const info = iconButton('info', 'i', t('Base, rank and trigger words'), wants.info)
  const remove = iconButton('remove', '×', t('Remove'), wants.remove)
  const parts = [handle, toggle, kind, name, error, scale, info, remove]
  const row = element('div', { className: 'row', tabIndex: 0, hidden: true }, ...parts)
  row.setAttribute('role', 'listitem')
  row.dataset.slot = number
  row.setAttribute(
    'aria-keyshortcuts',
    'Space Enter Delete ArrowLeft ArrowRight Alt+ArrowUp Alt+ArrowDown I'
  )
  let slot = null

  const canScale = () => slot && !('scale' in slot.links)
  function step(by, event) {
    if (!canScale()) return
    const size = event.shiftKey ? FINE : STEP
    wants.scale(clampScale(slot.scale + by * size), true)
  }

  // --- the scale: dragged, or clicked and typed
  value.addEventListener('pointerdown', (event) => {
    if (event.button !== 0 || !canScale()) return
    event.preventDefault()
    row.focus({ preventScroll: true })
    const from = { x: event.clientX, scale: slot.scale }
    let dragged = false
    value.setPointerCapture(event.pointerId)
    const move = (moved) => {
      const way = moved.clientX - from.x
      dragged ||= Math.abs(way) > DRAG
      if (!dragged) return
      const steps = Math.trunc(way / PIXELS_A_STEP)
      wants.scale(clampScale(from.scale + steps * (moved.shiftKey ? FINE : STEP)), false)
    }
    const end = (ended) => {
      value.removeEventListener('pointermove', move)
      for (const name of ['pointerup', 'pointercancel']) value.removeEventListener(name, end)
      if (dragged) wants.scale(slot.scale, true)
      else if (ended.type === 'pointerup') typeScale()
    }
    value.addEventListener('pointermove', move)
    for (const name of ['pointerup', 'pointercancel']) value.addEventListener(name, end)
  })
  function typeScale(first = '') {
    if (!canScale()) return
    edit(value, first || written(slot.scale), t('Scale'), !first, (text) => {
      if (text === null) return
      const typed = Number(text.replace(',', '.').replace('−', '-'))
      if (text.trim() && Number.isFinite(typed)) wants.scale(clampScale(typed), true)
    })
  }

  /** Lay a field over a part of the row; `done` gets the text unless Escape was pressed. */
  function edit(over, text, label, select, done) {
    const field = element('input', {
      className: 'field',
      value: text,
      spellcheck: false,
      autocomplete: 'off',
      ariaLabel: label
    })
    let open = true
    const close = (keep, focus) => {
      if (!open) return
      open = false
      const typed = field.value
      over.hidden = false
      field.remove()
      if (focus) row.focus({ preventScroll: true })
      done(keep ? typed : null)
    }
    field.addEventListener('keydown', (event) => {
      event.stopPropagation()
      if (event.key === 'Enter') close(true, true)
      else if (event.key === 'Escape') close(false, true)
    })
    for (const name of ['paste', 'copy', 'cut', 'keyup', 'pointerdown'])
      field.addEventListener(name, (event) => event.stopPropagation())
    field.addEventListener('blur', () => close(true, false))
    over.after(field)
    over.hidden = true
    field.focus({ preventScroll: true })
    if (select) field.select()
    else field.setSelectionRange(text.length, text.length)
    return field
  }

  // --- keys
  row.addEventListener('keydown', (event) => {
    if (event.target !== row || event.ctrlKey || event.metaKey) return
    const act = {
      ' ': () => wants.toggle(),
      Enter: () => wants.pick(),
      Delete: () => wants.remove(),
      Backspace: () => wants.remove(),
      ArrowLeft: () => step(-1, event),
      ArrowRight: () => step(1, event),
      ArrowUp: () => (event.altKey ? wants.move(-1) : wants.focus(-1)),
      ArrowDown: () => (event.altKey ? wants.move(1) : wants.focus(1)),
      Escape: () => wants.leave(),
      ContextMenu: () => wants.menu(event),
      i: () => wants.info(),
      I: () => wants.info()
    }[event.key]
    const typed = /^[-\d.]$/.test(event.key)
    if (!act && !typed && !(event.key === 'F10' && event.shiftKey)) return
    event.preventDefault()
    event.stopPropagation() // Delete would take the node, Space would pan
    if (act) act()
    else if (typed) typeScale(event.key)
    else wants.menu(event)
  })
  row.addEventListener('contextmenu', (event) => {
    event.preventDefault()
    event.stopPropagation()
    wants.menu(event)
  })

  return {
    element: row,
    handle,
    anchor: name,
    /** Type over the name: a repo or a link, or whatever it is recognised as. */
    typeName(text, done) {
      const field = edit(name, text, t('Repository or link'), true, done)
      field.placeholder = t('owner/repo or https://…')
      return field
    },
    show(shown, { words = '', misfit = '' } = {}) {
      slot = shown
      const { dim: where, tail: short } = shortName(slot.kind, slot.name)
      const from = slot.links.kind ?? slot.links.name
      dim.textContent = from === undefined ? where : ''
      const told = from === undefined ? short || t('choose a LoRA') : `⟵ ${from || t('linked')}`
      // A name too long loses its middle: trainers write the steps at the end.
      const cut = told.length > 2 * END ? told.length - END : told.length
      tail.textContent = told.slice(0, cut)
      end.textContent = told.slice(cut)
      name.title = from === undefined ? slot.name : t('This value comes over a link.')
      name.disabled = from !== undefined
      kind.textContent = MARKS[slot.kind] ?? '?'
      kind.title = kindNames()[slot.kind] ?? ''
      kind.disabled = 'kind' in slot.links
      const on = slot.enabled
      toggle.setAttribute('aria-checked', String(on))
      toggle.disabled = 'enabled' in slot.links
      toggle.title = toggle.disabled ? t('This value comes over a link.') : t('On or off')
      value.textContent = canScale() ? written(slot.scale) : '⟵'
      value.title = canScale()
        ? t('Drag to change it, with Shift in fine steps; click to type.')
        : t('This value comes over a link.')
      value.setAttribute('aria-valuenow', slot.scale)
      value.ariaLabel = t('Scale')
      less.disabled = more.disabled = !canScale()
      error.hidden = !words && !misfit
      error.textContent = words ? '!' : '≠'
      error.title = words || misfit
      row.classList.toggle('off', !on)
      row.classList.toggle('failed', Boolean(words))
      row.classList.toggle('linked', slot.linked)
      const state = on ? t('on') : t('off')
      row.setAttribute(
        'aria-label',
        [t(`LoRA ${number}`), told, state, t(`scale ${written(slot.scale)}`), words || misfit]
          .filter(Boolean)
          .join(', ')
      )
    }
  }
}
