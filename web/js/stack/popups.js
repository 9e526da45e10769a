// What opens over a row of the LoRA list: a menu, and the facts of a LoRA.

import { loraFacts } from './files.js'
import { INSTALLED } from './slots.js'
import { element } from '../page.js'
import { t } from '../words.js'

/** Show `content` at an element until Escape or a click elsewhere; the focus goes back then. */
function popup(anchor, content) {
  const box = element('div', { className: 'flux2-lora-popup', popover: 'auto' }, ...content)
  Object.assign(box.style, {
    position: 'fixed',
    margin: '0',
    padding: '4px',
    border: '1px solid var(--border-color, #666)',
    borderRadius: '6px',
    font: '13px/1.4 system-ui, sans-serif',
    color: 'var(--input-text, #ddd)',
    background: 'var(--comfy-menu-bg, #353535)',
    maxWidth: 'min(480px, 90vw)',
    overflow: 'auto'
  })
  document.body.append(box)
  box.showPopover()
  const at = anchor.getBoundingClientRect()
  const { width, height } = box.getBoundingClientRect()
  const below = at.bottom + height < innerHeight
  box.style.left = `${Math.max(0, Math.min(at.left, innerWidth - width - 4))}px`
  box.style.top = `${below ? at.bottom : Math.max(0, at.top - height)}px`
  box.addEventListener('toggle', ({ newState }) => {
    if (newState === 'closed') box.remove()
  })
  box.addEventListener('keydown', (event) => {
    event.stopPropagation() // the page's own keys
    if (event.key === 'Escape') box.hidePopover()
  })
  box.addEventListener('pointerdown', (event) => event.stopPropagation())
  return box
}

/** A menu of {label, act, off, checked}; arrows walk it, Enter and Space choose. */
export function openMenu(anchor, entries) {
  const back = anchor.closest('.row') ?? anchor
  const items = entries.map(({ label, act, off, checked }) => {
    const item = element('button', {
      type: 'button',
      textContent: checked === undefined ? label : `${checked ? '● ' : '○ '}${label}`,
      disabled: Boolean(off)
    })
    item.setAttribute('role', checked === undefined ? 'menuitem' : 'menuitemradio')
    if (checked !== undefined) item.setAttribute('aria-checked', String(checked))
    Object.assign(item.style, {
      all: 'unset',
      display: 'block',
      boxSizing: 'border-box',
      width: '100%',
      padding: '3px 10px',
      borderRadius: '4px',
      cursor: off ? 'default' : 'pointer',
      opacity: off ? '.5' : '1'
    })
    const mark = (on) => (item.style.boxShadow = on ? 'inset 0 0 0 2px currentColor' : '')
    item.addEventListener('focus', () => mark(true))
    item.addEventListener('blur', () => mark(false))
    item.addEventListener('pointerenter', () => item.focus())
    item.addEventListener('click', () => {
      box.hidePopover()
      back.focus({ preventScroll: true })
      act()
    })
    return item
  })
  const box = popup(anchor, items)
  box.setAttribute('role', 'menu')
  const usable = items.filter((item) => !item.disabled)
  const walk = { ArrowDown: 1, ArrowUp: -1 }
  box.addEventListener('keydown', (event) => {
    const by = walk[event.key]
    if (!by) return
    event.preventDefault()
    const now = usable.indexOf(document.activeElement)
    usable[(now + by + usable.length) % usable.length]?.focus()
  })
  usable[0]?.focus()
}

/** What is known of a slot's LoRA: its whole name, base, rank and trigger words. */
export async function openInfo(node, anchor, slot) {
  const facts = slot.kind === INSTALLED ? await loraFacts(slot.name, node) : null
  const lines = [
    [t('Name'), slot.name],
    [t('Base'), facts?.base],
    [t('Rank'), facts?.rank],
    [t('Trigger words'), facts?.trigger_words?.join(', ')]
  ]
  const told = lines
    .filter(([, value]) => value)
    .map(([label, value]) => {
      const line = element(
        'div',
        {},
        element('span', { textContent: `${label}: ` }),
        element('b', { textContent: String(value) })
      )
      line.style.overflowWrap = 'anywhere'
      line.style.userSelect = 'text'
      return line
    })
  if (!facts)
    told.push(
      element('div', {
        textContent:
          slot.kind === INSTALLED
            ? t('Nothing is known of this file yet.')
            : t('Base, rank and trigger words are known once the file is here.')
      })
    )
  const box = popup(anchor, told)
  box.setAttribute('role', 'dialog')
  box.ariaLabel = t('Base, rank and trigger words')
  box.tabIndex = -1
  box.style.padding = '8px 12px'
  box.focus()
}
