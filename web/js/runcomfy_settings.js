// The RunComfy settings: the API token, and the requests that are still open.
//
// The token goes to the server's owner-only file by a route of this pack. It is never a setting of
// ComfyUI, which any page and any exported settings file could read; the setting's own value stays
// empty. The server gives back whether a token is set and its last four characters.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'

const PREFIX = '/flux2-lora-edit'

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

function describe(status) {
  if (!status.set) return 'No token is set.'
  const where = { settings: 'from this page', 'RunComfy CLI': "from RunComfy's command line" }
  const source = where[status.source] ?? `from the variable ${status.source}`
  const shadowed = status.stored && status.source !== 'settings'
  return `Set (${status.hint}), ${source}.` + (shadowed ? ' It goes before the saved one.' : '')
}

function tokenSetting() {
  const said = element('span', { textContent: '…', ariaLive: 'polite' })
  const field = element('input', {
    type: 'password',
    autocomplete: 'off',
    spellcheck: false,
    placeholder: 'RunComfy API token',
    ariaLabel: 'RunComfy API token',
    className: 'p-inputtext p-component p-inputtext-sm'
  })
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
  field.addEventListener('keydown', (event) => {
    event.stopPropagation() // ComfyUI's own keys stay out of it
    if (event.key === 'Enter') save.click()
  })
  act('GET')
  return element(
    'div',
    { className: 'flex flex-col gap-2 items-end', id: 'flux2-lora-edit-token' },
    element('div', { className: 'flex gap-2' }, field, save, clear),
    said
  )
}

function openRequestsSetting() {
  const list = element('div', {
    className: 'flex flex-col gap-2 items-end',
    id: 'flux2-lora-edit-open-requests'
  })

  function row(entry) {
    const when = new Date(entry.started * 1000).toLocaleString()
    const id = entry.request_id || 'no id: look at your generations on RunComfy'
    const parts = [element('span', { textContent: `${when} · ${entry.state} · ${id}` })]
    if (entry.request_id) {
      parts.push(button('Copy id', () => navigator.clipboard?.writeText(entry.request_id)))
    }
    parts.push(button('Dismiss', () => act('DELETE', { key: entry.key })))
    return element('div', { className: 'flex gap-2 items-center' }, ...parts)
  }
  async function act(method, body) {
    try {
      const { open_requests: entries } = await call('/open-requests', method, body)
      list.replaceChildren(...entries.map(row))
      if (!entries.length) list.textContent = 'None.'
    } catch (error) {
      list.textContent = error.message
    }
  }
  act('GET')
  return list
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
      defaultValue: ''
    }
  ]
})
