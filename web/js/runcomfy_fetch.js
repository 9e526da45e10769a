// One press fetches a request's picture, which is paid already.
//
// It is a prompt of its own: the hosted node with the request's id, which submits nothing, and Save
// Image. The user's graph is not touched, so no id can stay in it and keep the next run from being
// one; and a picture that was paid for is saved, whatever graph is open. The same run in the graph
// is fetched again for nothing as well, with all that comes after it.

import { api } from '../../../scripts/api.js'
import { t } from './words.js'

const fetches = new Map() // request id -> its state, for as long as the page lives
const ended = new Map() // prompt id -> how it ended: that may be told before the id is
let count = 0

const ready = { text: '', pictures: [], underway: false, failed: false }

/** Tell `show` the state of a request's fetching, now and as long as `element` is in the page. */
export function follow(id, element, show) {
  const one = fetches.get(id) ?? { state: ready, shown: new Map() }
  fetches.set(id, one)
  one.shown.set(element, show)
  show(one.state)
}

function change(id, state) {
  const one = fetches.get(id)
  one.state = { ...one.state, ...state }
  for (const [element, show] of one.shown) {
    if (element.isConnected) show(one.state)
    else one.shown.delete(element)
  }
}

/** Queue the fetching of a request, in front of what waits; nothing while it is under way. */
export async function startFetch(id) {
  const one = fetches.get(id)
  if (one.state.underway) return
  const [node, save] = ['fetch', 'save'].map((part) => `flux2-lora-edit-${part}-${++count}`)
  Object.assign(one, { node, prompt: '' })
  change(id, { ...ready, underway: true, text: t("Waits in ComfyUI's queue …") })
  const output = {
    [node]: {
      class_type: 'Flux2EditRunComfy',
      inputs: { prompt: '', resume_request_id: id },
      _meta: { title: 'RunComfy FLUX.2 LoRA' }
    },
    [save]: {
      class_type: 'SaveImage',
      inputs: { images: [node, 0], filename_prefix: 'RunComfy' },
      _meta: { title: 'Save Image' }
    }
  }
  try {
    const { prompt_id: prompt } = await api.queuePrompt(-1, { output })
    one.prompt = prompt
    if (ended.has(prompt)) await end(ended.get(prompt))
    ended.clear()
  } catch (error) {
    const told = error?.response?.error
    change(id, { underway: false, failed: true, text: told?.message ?? error.message })
  }
}

/** The addresses of the pictures that a prompt of ours has saved, and their names. */
async function saved(prompt) {
  const history = await (await api.fetchApi(`/history/${encodeURIComponent(prompt)}`)).json()
  const images = Object.entries(history[prompt]?.outputs ?? {})
    .filter(([node]) => node.includes('-save-'))
    .flatMap(([, output]) => output.images ?? [])
  return images.map(({ filename, subfolder = '', type }) => ({
    name: subfolder ? `${subfolder}/${filename}` : filename,
    address: api.apiURL(`/view?${new URLSearchParams({ filename, subfolder, type })}`)
  }))
}

async function end({ type, detail }) {
  const early = [...fetches.values()].some(({ state, prompt }) => state.underway && !prompt)
  if (early) ended.set(detail.prompt_id, { type, detail })
  for (const [id, one] of fetches) {
    if (!one.prompt || one.prompt !== detail.prompt_id || !one.state.underway) continue
    if (type === 'execution_success') {
      const found = await saved(detail.prompt_id)
      const names = found.map(({ name }) => name).join(', ')
      change(id, {
        underway: false,
        text: t(`Saved in ComfyUI's output folder: ${names}. Nothing was paid for it now.`),
        pictures: found.map(({ address }) => address)
      })
    } else if (type === 'execution_error') {
      change(id, { underway: false, failed: true, text: (detail.exception_message ?? '').trim() })
    } else {
      change(id, { underway: false }) // what the node has said last stands there
    }
  }
}

for (const type of ['execution_success', 'execution_error', 'execution_interrupted']) {
  api.addEventListener(type, end)
}
api.addEventListener('progress_text', ({ detail }) => {
  for (const [id, one] of fetches) {
    if (one.state.underway && one.node === String(detail.nodeId)) change(id, { text: detail.text })
  }
})
