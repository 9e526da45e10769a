// What a run of the hosted node costs, on its face before it is run, however the node was added.
//
// The price is RunComfy's own, from its catalogue, asked for once a page by this pack's server and
// with a token alone. ComfyUI's price badge would show it on nodes of comfy.org's API only.

import { app } from '../../../scripts/app.js'
import { api } from '../../../scripts/api.js'
import { note } from './node_text.js'
import { after, widgetOf } from './page.js'
import { button, call, TOKEN_EVENT } from './runcomfy_settings.js'
import { t, words } from './words.js'

const NODE = 'Flux2EditRunComfy'
const NAME = 'flux2_edit_price'
const FRESH_MS = 600_000
const ADDRESSES_HEIGHT = 60
const DECIDES = ['mode', 'batch_count', 'resume_request_id', 'image_urls']

const faces = new Map() // node -> what its face says
const hints = new WeakMap() // node -> what shows its placeholder in the page's language
let asked = null // { when, known: a promise }

/** Whether a token is set and each mode's price; an empty answer where the server gives none. */
function prices() {
  if (!asked || Date.now() - asked.when > FRESH_MS) {
    asked = { when: Date.now(), known: call('/prices').catch(() => ({ set: true, prices: {} })) }
  }
  return asked.known
}

const linked = (node, name) => node.inputs?.some((one) => one.name === name && one.link != null)
const valueOf = (node, name) => widgetOf(node, name)?.value
const filled = (node, name) => linked(node, name) || String(valueOf(node, name) ?? '').trim()

/** The mode that will be priced: auto edits as soon as there is a picture. */
function modeOf(node) {
  const mode = valueOf(node, 'mode')
  if (mode !== 'auto') return mode
  const pictures = ['image_1', 'image_2', 'image_3'].some((name) => linked(node, name))
  return pictures || filled(node, 'image_urls') ? 'edit' : 'text to image'
}

function costOf(node, known) {
  if (filled(node, 'resume_request_id')) {
    return t('Fetches what is in resume_request_id. It costs nothing.')
  }
  if (!known.set) {
    return [
      t('A run is paid at RunComfy. No API token is set: Settings, FLUX.2 LoRA Edit, RunComfy.'),
      t('Your token: https://www.runcomfy.com/profile')
    ].join('\n')
  }
  const price = known.prices[linked(node, 'mode') ? 'edit' : modeOf(node)]
  if (price?.usd == null) {
    if (price?.text) return t(`A run is paid at RunComfy: ${price.text}.`)
    return t('A run is paid at RunComfy. Its catalogue tells no price now.')
  }
  if (linked(node, 'batch_count')) return t(`Each picture costs $${price.usd} at RunComfy.`)
  const count = Number(valueOf(node, 'batch_count') ?? 1)
  const total = Number((count * price.usd).toFixed(6))
  if (count > 1) return t(`A run costs $${total} at RunComfy: ${count} × $${price.usd}.`)
  return t(`A run costs $${total} at RunComfy.`)
}

function settingsButton() {
  const open = () => app.extensionManager.command.execute('Comfy.ShowSettingsDialog')
  return button(t('Open the settings'), open)
}

async function refresh(node) {
  const known = await prices()
  if (!faces.has(node)) return // gone meanwhile
  hints.get(node)?.()
  const text = costOf(node, known)
  if (faces.get(node) === text) return
  faces.set(node, text)
  note(node, NAME, text, ...(known.set ? [] : [settingsButton()]))
  const { element } = widgetOf(node, NAME)
  element.title = t("By RunComfy's catalogue. The same request again is fetched for nothing.")
}

const refreshAll = () => [...faces.keys()].forEach(refresh)

function addFace(node) {
  faces.set(node, '')
  const change = () => void refresh(node)
  for (const name of DECIDES) {
    const widget = widgetOf(node, name)
    if (widget) after(widget, 'callback', change)
  }
  after(node, 'onConnectionsChange', change)
  after(node, 'onConfigure', change)
  after(node, 'onRemoved', () => faces.delete(node))
  const addresses = widgetOf(node, 'image_urls')
  if (addresses) {
    // The space that is left is the prompt's.
    addresses.options.getMaxHeight = () => ADDRESSES_HEIGHT
    const { element } = addresses
    const english = element?.placeholder
    if (english) hints.set(node, () => (element.placeholder = t(english)))
  }
  change()
}

app.registerExtension({
  name: 'flux2-lora-edit.runcomfy-face',
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    try {
      addFace(node)
    } catch (error) {
      console.warn('FLUX.2 LoRA Edit: the hosted node keeps its stock face', error)
    }
  },
  setup() {
    // A value that no hand has changed (undo, another pack) is seen here at the latest.
    api.addEventListener('graphChanged', refreshAll)
    words.addEventListener('change', refreshAll)
    window.addEventListener(TOKEN_EVENT, () => {
      asked = null
      refreshAll()
    })
  }
})
