// The RunComfy settings: the API token, the requests that are still open, and those of before.
//
// The token goes to the server's owner-only file by a route of this pack. It is never a setting of
// ComfyUI, which any page and any exported settings file could read; the setting's own value stays
// empty. The server gives back whether a token is set and its last four characters.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'

const PREFIX = '/flux2-lora-edit'
const SHARED =
  'This server runs with --multi-user: all its users spend this token, may change it, and see the ' +
  'lists below.'

async function call(path, method = 'GET', body = undefined) {
  const options = { method, cache: 'no-store' }
  if (method !== 'GET') {
    options.headers = { 'Content-Type': 'application/json', 'X-Flux2-Lora-Edit': '1' }
    options.body = JSON.stringify(body ?? {})
  }
  const response = await api.fetchApi(PREFIX + path, options)
  if (response.status === 404) throw new Error('Off: ComfyUI runs with --disable-api-nodes.')
  const text = await response.text()
  let answer = {}
  try {
    answer = JSON.parse(text)
  } catch {
    answer = { error: text }
  }
  if (!response.ok) throw new Error(answer.error || `HTTP ${response.status}`)
  return answer
}

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

function button(label, action) {
  return element('button', {
    type: 'button',
    textContent: label,
    className: 'p-button p-component p-button-sm p-button-secondary',
    onclick: action
  })
}

/** A field for a text that ComfyUI's own keys stay out of. */
function textField(label, enter, properties = {}) {
  const field = element('input', {
    autocomplete: 'off',
    spellcheck: false,
    placeholder: label,
    ariaLabel: label,
    className: 'p-inputtext p-component p-inputtext-sm',
    ...properties
  })
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') event.stopPropagation() // which closes the settings
    if (event.key === 'Enter') enter()
  })
  return field
}

function describe(status) {
  if (!status.set) return 'No token is set.'
  const where = { settings: 'from this page', 'RunComfy CLI': "from RunComfy's command line" }
  const source = where[status.source] ?? `from the variable ${status.source}`
  const shadowed = status.stored && status.source !== 'settings'
  return (
    `Set (${status.hint}), ${source}.` +
    (shadowed ? ' It goes before the saved one.' : '') +
    (status.shared ? ` ${SHARED}` : '')
  )
}

function tokenSetting() {
  const said = element('span', { textContent: '…', ariaLive: 'polite' })
  const field = textField('RunComfy API token', () => save.click(), { type: 'password' })
  const clear = button('Clear', () => act('DELETE'))
  const save = button('Save', () => act('PUT', { token: field.value }))

  function show(status) {
    said.textContent = describe(status)
    clear.disabled = !status.stored
  }
  async function act(method, body) {
    try {
      show(await call('/token', method, body))
      field.value = ''
    } catch (error) {
      said.textContent = error.message
    }
  }
  act('GET')
  return element(
    'div',
    { className: 'flex flex-col gap-2 items-end', id: 'flux2-lora-edit-token' },
    element('div', { className: 'flex gap-2' }, field, save, clear),
    said
  )
}

/** Selects the id and copies it where the browser allows that (on this machine, or by https). */
async function copyId(event, id) {
  const said = event.target.closest('[data-list]').querySelector('[data-copied]')
  getSelection().selectAllChildren(event.target.parentElement.querySelector('code'))
  try {
    await navigator.clipboard.writeText(id)
    said.textContent = 'Copied. Paste it into resume_request_id and run: it costs nothing.'
  } catch {
    said.textContent = 'The id is selected. Copy it into resume_request_id and run.'
  }
}

/** A request: when, what, its cost, its state and id, and what can be done about it. */
function row(entry, ...buttons) {
  const cost = entry.cost_usd == null ? '' : `$${entry.cost_usd}`
  const when = new Date(entry.started * 1000).toLocaleString()
  const told = [when, entry.what, cost, entry.state].filter(Boolean).join(' · ')
  const id = entry.request_id
  const code = element('code', { textContent: id || 'no id: look at your generations on RunComfy' })
  const copy = id ? [button('Copy id', (event) => copyId(event, id))] : []
  const prompt = entry.prompt ? [element('span', { textContent: `“${entry.prompt}”` })] : []
  return element(
    'div',
    { role: 'listitem', className: 'flex flex-col gap-1 items-end text-right' },
    element('span', { textContent: told }),
    ...prompt,
    element('span', { className: 'flex gap-2 items-center' }, code, ...copy, ...buttons)
  )
}

/** A list that scrolls, by keys too; what is said above it is read out when it changes. */
function requestList(id, name) {
  const said = element('span', { textContent: '…', ariaLive: 'polite' })
  const list = element('div', {
    role: 'list',
    ariaLabel: name,
    tabIndex: 0,
    className: 'flex flex-col gap-3 items-end overflow-y-auto w-full',
    style: 'max-height: 20rem; overflow-wrap: anywhere'
  })
  const copied = element('span', { ariaLive: 'polite' })
  copied.dataset.copied = ''
  const lines = [said, copied, list]
  const whole = element('div', { id, className: 'flex flex-col gap-2 items-end' }, ...lines)
  whole.dataset.list = ''
  return {
    whole,
    show(text, rows) {
      said.textContent = text
      list.replaceChildren(...rows)
      list.hidden = !rows.length
    }
  }
}

function openRequestsSetting() {
  const { whole, show } = requestList('flux2-lora-edit-open-requests', 'Open requests')

  /** What is not known to have been taken is fetched once its id is found, or paid anew. */
  function waysOut({ key, request_id: known }) {
    const dismiss = button('Dismiss', () => act('DELETE', { key }))
    if (known) return [dismiss]
    dismiss.title = 'Lets the same request be paid anew.'
    const field = textField('Its id, if it is there', () => save.click())
    const save = button('Save id', () => act('PUT', { key, request_id: field.value }))
    return [field, save, dismiss]
  }
  async function act(method, body) {
    try {
      const { open_requests: entries } = await call('/open-requests', method, body)
      show(
        entries.length ? `${entries.length} open` : 'None.',
        entries.map((entry) => row(entry, ...waysOut(entry)))
      )
    } catch (error) {
      show(error.message, [])
    }
  }
  act('GET')
  return whole
}

function historySetting() {
  const { whole, show } = requestList('flux2-lora-edit-history', 'History')

  async function fill() {
    try {
      const { requests, sum_usd: sum } = await call('/history')
      show(
        requests.length
          ? `${requests.length} newest, $${sum} in all: RunComfy's figures, else its catalogue's.`
          : 'None.',
        requests.map((entry) => row(entry))
      )
    } catch (error) {
      show(error.message, [])
    }
  }
  fill()
  return whole
}

app.registerExtension({
  name: 'flux2-lora-edit.runcomfy',
  settings: [
    {
      id: 'Flux2LoraEdit.RunComfy.Token',
      category: ['FLUX.2 LoRA Edit', 'RunComfy', 'Token'],
      name: 'API token',
      tooltip: 'Kept on the server in a file that only its owner can read; never in a workflow.',
      type: tokenSetting,
      sortOrder: 100, // above the open requests
      defaultValue: ''
    },
    {
      id: 'Flux2LoraEdit.RunComfy.OpenRequests',
      category: ['FLUX.2 LoRA Edit', 'RunComfy', 'Open requests'],
      name: 'Open requests',
      tooltip:
        "Paid or possibly paid requests without an outcome. Write an id, or 'open' for all, into " +
        'resume_request_id to fetch them without paying again.',
      type: openRequestsSetting,
      sortOrder: 50,
      defaultValue: ''
    },
    {
      id: 'Flux2LoraEdit.RunComfy.History',
      category: ['FLUX.2 LoRA Edit', 'RunComfy', 'History'],
      name: 'History',
      tooltip:
        'The newest 100 requests of this server. To fetch one again, copy its id into ' +
        'resume_request_id and run: it submits nothing and costs nothing, as long as RunComfy ' +
        'keeps the result. The words of a prompt are shown until ComfyUI restarts; no file of ' +
        'this record holds them.',
      type: historySetting,
      defaultValue: ''
    }
  ]
})
