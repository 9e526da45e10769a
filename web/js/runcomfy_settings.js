// The RunComfy settings: the API token, the requests that are still open, and those of before, each
// fetched by one press.
//
// The token goes to the server's owner-only file by a route of this pack. It is never a setting of
// ComfyUI, which any page and any exported settings file could read; the setting's own value stays
// empty. The server gives back whether a token is set and its last four characters.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'
import { withLinks } from './node_text.js'
import { element } from './page.js'
import { follow, startFetch } from './runcomfy_fetch.js'
import { t } from './words.js'

const PREFIX = '/flux2-lora-edit'
/** Told to window when the token is set or cleared. */
export const TOKEN_EVENT = 'flux2-lora-edit:token'
// Nothing is made or billed of these, or nothing is left.
const FRUITLESS = ['refused', 'failed', 'cancelled', 'gone']

/** Ask a route of this pack; throws what it says is wrong. */
export async function call(path, method = 'GET', body = undefined) {
  const options = { method, cache: 'no-store' }
  if (method !== 'GET') {
    options.headers = { 'Content-Type': 'application/json', 'X-Flux2-Lora-Edit': '1' }
    options.body = JSON.stringify(body ?? {})
  }
  const response = await api.fetchApi(PREFIX + path, options)
  if (response.status === 404) throw new Error(t('Off: ComfyUI runs with --disable-api-nodes.'))
  const text = await response.text()
  let answer = {}
  try {
    answer = JSON.parse(text)
  } catch {
    answer = { error: text }
  }
  if (!response.ok) throw new Error(t(answer.error || `HTTP ${response.status}`))
  return answer
}

// The page's own classes of buttons and fields are not those of the next version.
const CONTROL =
  'padding: 3px 10px; border-radius: 6px; border: 1px solid var(--border-color, #666); ' +
  'background: var(--comfy-input-bg, #222); color: var(--input-text, #ddd); font-size: 14px'

/** A button that looks as the page's do, on a node too. */
export function button(label, action) {
  return element('button', { type: 'button', textContent: label, style: CONTROL, onclick: action })
}

/** A field for a text that ComfyUI's own keys stay out of. */
function textField(label, enter, properties = {}) {
  const field = element('input', {
    autocomplete: 'off',
    spellcheck: false,
    placeholder: label,
    ariaLabel: label,
    style: CONTROL,
    ...properties
  })
  field.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') event.stopPropagation() // which closes the settings
    if (event.key === 'Enter') enter()
  })
  return field
}

function describe(status) {
  if (!status.set) {
    return t('No token is set. Get one at https://www.runcomfy.com/profile and paste it here.')
  }
  const { hint, source } = status
  const where = {
    settings: t(`Set (${hint}), from this page.`),
    'RunComfy CLI': t(`Set (${hint}), from RunComfy's command line.`)
  }
  const shadowed = status.stored && source !== 'settings'
  return [
    where[source] ?? t(`Set (${hint}), from the variable ${source}.`),
    shadowed ? t('It goes before the saved one.') : '',
    status.shared
      ? t(
          'This server runs with --multi-user: all its users spend this token, may change it, ' +
            'and see the lists below.'
        )
      : ''
  ]
    .filter(Boolean)
    .join(' ')
}

function tokenSetting() {
  const said = element('span', { textContent: '…', ariaLive: 'polite' })
  const field = textField(t('RunComfy API token'), () => save.click(), { type: 'password' })
  const clear = button(t('Clear'), () => act('DELETE'))
  const save = button(t('Save'), () => act('PUT', { token: field.value }))

  function show(status) {
    said.replaceChildren(...withLinks(describe(status)))
    clear.disabled = !status.stored
  }
  async function act(method, body) {
    try {
      show(await call('/token', method, body))
      field.value = ''
      if (method !== 'GET') window.dispatchEvent(new Event(TOKEN_EVENT))
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
    said.textContent = t('Copied. Paste it into resume_request_id and run: it costs nothing.')
  } catch {
    said.textContent = t('The id is selected. Copy it into resume_request_id and run.')
  }
}

/** What became of a request, in words. */
function stateOf({ state, request_id: id }) {
  const words = {
    submitting: t('sent, no answer yet'),
    accepted: t('accepted, running at RunComfy'),
    unknown: id ? t('not known whether this id is it') : t('not known whether RunComfy took it'),
    left: t('not fetched: RunComfy finishes and bills it'),
    handed: t('fetched, its run has not ended'),
    delivered: t('delivered'),
    refused: t('refused, not billed'),
    failed: t('failed at RunComfy'),
    cancelled: t('cancelled'),
    gone: t('RunComfy no longer has its result'),
    dismissed: t('dismissed')
  }
  return words[state] ?? state
}

/** A picture that opens large in a tab of its own. */
function thumbnail(address) {
  const style = 'max-width: 128px; max-height: 128px; border-radius: 6px'
  const picture = element('img', { src: address, alt: t('The fetched picture'), style })
  return element('a', { href: address, target: '_blank', rel: 'noopener' }, picture)
}

/** How the fetching of a request goes; it is said here again when the settings are opened anew. */
function fetchLine(id, press, delivered) {
  const said = element('span', { ariaLive: 'polite', style: 'white-space: pre-wrap' })
  const pictures = element('span', { className: 'flex gap-2 flex-wrap justify-end' })
  follow(id, said, (state) => {
    // Not disabled, which would take the focus away from it.
    press.setAttribute('aria-disabled', String(Boolean(state.underway)))
    press.style.opacity = state.underway ? '0.5' : ''
    const lines = state.text.split('\n').map((line) => t(line))
    said.replaceChildren(...withLinks(state.failed ? `⚠ ${lines.join('\n')}` : lines.join('\n')))
    pictures.replaceChildren(...state.pictures.map(thumbnail))
    if (state.pictures.length) delivered()
  })
  return [said, pictures]
}

/** A request: when, what, its cost, its state and id, and what can be done about it. */
function row(entry, ...buttons) {
  const cost = entry.cost_usd == null ? '' : `$${entry.cost_usd}`
  const when = new Date(entry.started * 1000).toLocaleString()
  const tell = (state) => [when, t(entry.what), cost, state].filter(Boolean).join(' · ')
  const told = element('span', { textContent: tell(stateOf(entry)) })
  const id = entry.request_id
  const code = element('code', {
    textContent: id || t('no id: look at your generations on RunComfy')
  })
  const own = []
  const lines = []
  if (id && !FRUITLESS.includes(entry.state)) {
    const press = button(t('Fetch'), () => startFetch(id))
    press.title = t('Saves its picture in the output folder. It costs nothing.')
    own.push(press)
    const delivered = () => (told.textContent = tell(t('delivered')))
    lines.push(...fetchLine(id, press, delivered))
  }
  if (id) own.push(button(t('Copy id'), (event) => copyId(event, id)))
  const prompt = entry.prompt ? [element('span', { textContent: `“${entry.prompt}”` })] : []
  return element(
    'div',
    { role: 'listitem', className: 'flex flex-col gap-1 items-end text-right' },
    told,
    ...prompt,
    element(
      'span',
      { className: 'flex gap-2 items-center flex-wrap justify-end' },
      code,
      ...own,
      ...buttons
    ),
    ...lines
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
  const { whole, show } = requestList('flux2-lora-edit-open-requests', t('Open requests'))

  /** What is not known to have been taken is fetched once its id is found, or paid anew. */
  function waysOut({ key, request_id: known }) {
    const dismiss = button(t('Dismiss'), () => act('DELETE', { key }))
    if (known) return [dismiss]
    dismiss.title = t('Lets the same request be paid anew.')
    const field = textField(t('Its id, if it is there'), () => save.click())
    const save = button(t('Save id'), () => act('PUT', { key, request_id: field.value }))
    return [field, save, dismiss]
  }
  async function act(method, body) {
    try {
      const { open_requests: entries } = await call('/open-requests', method, body)
      show(
        entries.length ? t(`${entries.length} open`) : t('None.'),
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
  const { whole, show } = requestList('flux2-lora-edit-history', t('History'))

  async function fill() {
    try {
      const { requests, sum_usd: sum } = await call('/history')
      show(
        requests.length
          ? t(
              `${requests.length} newest, $${sum} in all: RunComfy's figures, else its catalogue's.`
            )
          : t('None.'),
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
        "Paid or possibly paid requests without an outcome. Fetch saves the picture in ComfyUI's " +
        'output folder and costs nothing; so does its id in resume_request_id.',
      type: openRequestsSetting,
      sortOrder: 50,
      defaultValue: ''
    },
    {
      id: 'Flux2LoraEdit.RunComfy.History',
      category: ['FLUX.2 LoRA Edit', 'RunComfy', 'History'],
      name: 'History',
      tooltip:
        "The newest 100 requests of this server. Fetch saves a picture again in ComfyUI's output " +
        'folder: it submits nothing and costs nothing, as long as RunComfy keeps the result. The ' +
        'words of a prompt are shown until ComfyUI restarts; no file of this record holds them.',
      type: historySetting,
      defaultValue: ''
    }
  ]
})
