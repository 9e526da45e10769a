// What this pack says, in the language of the page.
//
// The server speaks English, in logs and headless runs too, and does not know the page's language.
// web/words/<language>.json holds its sentences with names where values stand: "There is no LoRA
// '{name}' in the loras folders.". One is found by what stands between its values, from the left,
// or from the right where that leaves words for a number ({n}, {n2}); a value may be a text of ours
// itself. What files and servers say stays as it is.

import { app } from '../../../scripts/app.js'

const LANGUAGES = ['ja', 'zh'] // the files in web/words
const SEPARATORS = [' · ', ' ', '; ', ', ', ': ', ' and ', ' or ']
const SENTENCE = 1 // the place of that separator: it stands behind a . ! or ?
const JOINED = 4 // parts of a text that are tried as one: a value may hold the separator
const MOST_WORK = 500_000 // characters looked at for one text; what comes later stays English
const NUMBER = /^[-+]?[\d.,]+ ?%?$/
const tables = new Map()

/** Says 'change' when what is shown has other words now: t() it again. */
export const words = new EventTarget()

const fold = (text) => text.replace(/[“”]/g, '"').replace(/[‘’]/g, "'") // as host.show_text quotes
const glue = (one, next) => one + (/[）」。，、：；]$/.test(one) ? next.trimStart() : next)

/** A text in its sentences, each with its stop and without the space behind it. */
function sentences(text) {
  const [first, ...rest] = text.split(/(?:([.!?]) )(?=\S)/)
  const found = [first]
  for (let i = 0; i < rest.length; i += 2) {
    found[found.length - 1] += rest[i]
    found.push(rest[i + 1])
  }
  return found
}

function readTable(entries) {
  const table = { exact: new Map(), templates: [] }
  for (const [english, told] of Object.entries(entries)) {
    const [parts, said] = [fold(english), told].map((text) => text.split(/\{(\w+)\}/))
    const [pieces, names] = [0, 1].map((odd) => parts.filter((_, at) => at % 2 === odd))
    const numbers = names.map((name) => /^n\d*$/.test(name))
    const order = said.map((part, at) => (at % 2 ? names.indexOf(part) : part))
    if (names.length) table.templates.push({ pieces, numbers, said: order })
    else table.exact.set(pieces[0], told)
  }
  const size = ({ pieces }) => pieces.join('').length
  table.templates.sort((one, other) => size(other) - size(one))
  return table
}

/** The values of a template in a text, in one pass over it; null if it says something else. */
function findValues({ pieces }, text, folded, fromRight) {
  const last = pieces.length - 1
  let [from, to] = [pieces[0].length, text.length - pieces[last].length]
  if (from > to || !folded.startsWith(pieces[0]) || !folded.endsWith(pieces[last])) return null
  const values = []
  for (let i = 1; i < last; i++) {
    const piece = pieces[fromRight ? last - i : i]
    const at = fromRight ? folded.lastIndexOf(piece, to - piece.length) : folded.indexOf(piece, from)
    if (at < from || at + piece.length > to) return null
    if (fromRight) values.unshift(text.slice(at + piece.length, to))
    else values.push(text.slice(from, at))
    if (fromRight) to = at
    else from = at + piece.length
  }
  values[fromRight ? 'unshift' : 'push'](text.slice(from, to))
  return values
}

/** A text in the language of a table, as far as that goes. */
class Reader {
  constructor(table) {
    Object.assign(this, { table, left: MOST_WORK })
  }

  sign(english) {
    return this.table.exact.get(english) ?? english
  }

  /** What the table has for a whole text, or null; a word alone is a choice or a name. */
  known(text) {
    this.left -= text.length + 100
    if (this.left < 0 || /^[a-z\d_]*$/.test(text)) return null
    const folded = fold(text)
    if (this.table.exact.has(folded)) return this.table.exact.get(folded)
    for (const template of this.table.templates) {
      const fits = (found) => found.every((one, i) => !template.numbers[i] || NUMBER.test(one))
      let values = findValues(template, text, folded)
      if (values && !fits(values)) values = findValues(template, text, folded, true)
      if (!values || !fits(values)) continue
      const told = template.said.map((part, at) => (at % 2 ? this.read(values[part]) : part))
      return told.reduce(glue)
    }
    return null
  }

  /** A text whole, or part by part: what stands before a colon, lines' items, sentences, clauses. */
  read(text, level = 0) {
    if (this.left < 0) return text
    const head = level ? text : text.split(': ', 1)[0]
    if (head !== text && this.known(sentences(text)[0]) === null) {
      const named = this.table.exact.get(head) ?? this.known(head)
      if (named !== null) return named + this.sign(': ') + this.read(text.slice(head.length + 2))
    }
    for (let next = level; next < SEPARATORS.length; next++) {
      const parts = next === SENTENCE ? sentences(text) : text.split(SEPARATORS[next])
      const said = parts.length > 1 || next === SENTENCE ? this.parts(parts, next) : null
      if (said !== null) return said
    }
    return text
  }

  /** The parts of a text, of which some may be one sentence together; null where none is known. */
  parts(parts, level) {
    const separator = SEPARATORS[level]
    const told = []
    for (let at = 0, taken = 0; at < parts.length; at += taken) {
      let said = null
      for (taken = 0; said === null && taken < JOINED && at + taken < parts.length; taken++)
        said = this.known(parts.slice(at, at + taken + 1).join(separator))
      if (said === null) taken = 1
      told.push(said ?? this.within(parts[at], 2) ?? this.read(parts[at], level + 1))
    }
    if (told.every((one, at) => one === parts[at])) return null
    return told.reduce((before, one) => glue(before, this.sign(separator) + one))
  }

  /** A text in brackets or quotes, or with a stop that our sentence has not, or without; or null. */
  within(text, depth) {
    if (!depth) return null
    const whole = /[\w)]$/.test(text) ? this.known(`${text}.`) : null
    if (whole !== null) return whole.replace(/。$/, '')
    const [before, behind] = [text.slice(0, -1), text.slice(1)]
    let said = /[).”"]$/.test(text) ? (this.known(before) ?? this.within(before, depth - 1)) : null
    if (said !== null) return said + this.sign(text.at(-1))
    said = /^[(“"]/.test(text) ? (this.known(behind) ?? this.within(behind, depth - 1)) : null
    return said === null ? null : text[0] + said
  }
}

/** A language by its family: 'zh-TW' reads 'zh' sooner than English. */
const family = (locale) => String(locale ?? 'en').split('-')[0]
const language = () => family(app.extensionManager?.setting?.get('Comfy.Locale'))

async function load(name) {
  if (!LANGUAGES.includes(name) || tables.has(name)) return
  tables.set(name, null)
  try {
    const signal = AbortSignal.timeout(10_000) // the page waits for it at its start
    const file = await fetch(new URL(`../words/${name}.json`, import.meta.url), { signal })
    if (file.ok) tables.set(name, readTable(await file.json()))
  } catch (error) {
    console.warn('FLUX.2 LoRA Edit: its words stay English', error)
  }
}

/** An English text of this pack in the page's language, or as it is where that has none for it. */
export function t(english) {
  const table = tables.get(language())
  if (!table) return english
  const reader = new Reader(table)
  return String(english).replace(/\S.*/g, (line) => table.exact.get(line) ?? reader.read(line))
}

app.registerExtension({
  name: 'flux2-lora-edit.words',
  async init() {
    app.ui?.settings?.addEventListener?.('Comfy.Locale.change', async ({ detail }) => {
      await load(family(detail?.value))
      // The setting has its new value only after this event.
      setTimeout(() => words.dispatchEvent(new Event('change')))
    })
    await load(language())
  }
})
