// What is known of the installed LoRAs: base, rank, trigger words, and which fit the node's model.
//
// The server reads it from the files' headers. Which model it is, the page alone knows: it is that
// of the Apply node that the stack leads to, through other nodes and the borders of subgraphs.

import { app } from '../../../../scripts/app.js'
import { api } from '../../../../scripts/api.js'
import { APPLY, STACK, STACK_TYPE } from './slots.js'
import { widgetOf } from '../page.js'

const ROUTE = '/flux2-lora-edit/lora-files'
// The widgets of loaders that name a model's file.
const MODEL_WIDGETS = ['unet_name', 'ckpt_name', 'gguf_name', 'model_name', 'model_path']
const FROM_OUTSIDE = '-10' // a link's origin, where it comes in through a subgraph's border
const TO_OUTSIDE = '-20'

const lists = new Map() // a model's name -> the promise of its list

// --- which model

const linkOf = (graph, id) => (id == null ? undefined : (graph.getLink?.(id) ?? graph.links?.[id]))
const text = (value) => (typeof value === 'string' ? value : '')
const isAny = (type) => type === '*' || type === 0 || type === ''

/** The nodes that stand for a subgraph, wherever they are. */
function standIns(subgraph) {
  const root = app.rootGraph ?? app.graph
  const graphs = [root, ...(root.subgraphs?.values() ?? [])]
  return graphs.flatMap((graph) => (graph.nodes ?? []).filter((node) => node.subgraph === subgraph))
}

/** The inputs, as [node, index], that an output leads to. */
function targetsOf(node, output) {
  const targets = []
  for (const id of output?.links ?? []) {
    const link = linkOf(node.graph, id)
    if (link) targets.push(...ends(node.graph, link))
  }
  return targets
}

function ends(graph, link) {
  if (String(link.target_id) === TO_OUTSIDE)
    return standIns(graph).flatMap((outer) => targetsOf(outer, outer.outputs?.[link.target_slot]))
  const node = graph.getNodeById(link.target_id)
  if (!node) return []
  if (!node.subgraph) return [[node, link.target_slot]]
  const inner = node.subgraph.inputs?.[link.target_slot]?.linkIds ?? []
  return inner.flatMap((id) => {
    const next = linkOf(node.subgraph, id)
    return next ? ends(node.subgraph, next) : []
  })
}

/** The output, as [node, index], that an input comes from; of a widget's value too. */
function originOf(node, input) {
  const link = linkOf(node.graph, input?.link)
  return link ? beginning(node.graph, link) : undefined
}

function beginning(graph, link) {
  if (String(link.origin_id) === FROM_OUTSIDE) {
    for (const outer of standIns(graph)) {
      const input = outer.inputs?.[link.origin_slot]
      const found = originOf(outer, input)
      if (found) return found
      const widget = widgetOf(outer, input?.widget?.name)
      if (widget) return [{ value: widget.value }, 0]
    }
    return undefined
  }
  const node = graph.getNodeById(link.origin_id)
  if (!node?.subgraph) return node && [node, link.origin_slot]
  const [id] = node.subgraph.outputs?.[link.origin_slot]?.linkIds ?? []
  const next = linkOf(node.subgraph, id)
  return next && beginning(node.subgraph, next)
}

/** What a loader's widget says, or who gives it its value. */
function valueOf(node, widget) {
  const input = node.inputs?.find((one) => one.widget?.name === widget.name && one.link != null)
  const [giver] = (input && originOf(node, input)) ?? []
  return giver ? (giver.value ?? giver.widgets?.[0]?.value) : widget.value
}

/** The name of the file that an input's MODEL is loaded from; '' where that is not known. */
function modelBehind(node, input, seen = new Set()) {
  const [giver] = originOf(node, input) ?? []
  if (!giver || seen.has(giver)) return ''
  seen.add(giver)
  const through = (fits) => {
    for (const next of giver.inputs ?? []) {
      const found = fits(next.type) ? modelBehind(giver, next, seen) : ''
      if (found) return found
    }
    return ''
  }
  const widget = giver.widgets?.find((one) => MODEL_WIDGETS.includes(one.name))
  const own = () => text(widget && valueOf(giver, widget))
  return through((type) => type === 'MODEL') || own() || through(isAny)
}

/** The name of the model's file that a stack's LoRAs are applied to; '' where none is known. */
export function modelOf(node) {
  const seen = new Set([node])
  for (const one of seen) {
    // Grows meanwhile.
    for (const output of one.outputs ?? []) {
      if (output.type !== STACK_TYPE && !isAny(output.type)) continue
      for (const [target] of targetsOf(one, output)) {
        if ((target.comfyClass ?? target.type) !== APPLY) {
          seen.add(target)
          continue
        }
        const found = modelBehind(target, target.inputs?.find((input) => input.name === 'model'))
        if (found) return found
      }
    }
  }
  return ''
}

// --- what is known of the files

/** An entry as others may rely on it, whatever the server says. */
function entryOf(row) {
  const words = Array.isArray(row?.trigger_words) ? row.trigger_words : []
  return {
    name: text(row?.name),
    base: text(row?.base),
    fits: typeof row?.fits === 'boolean' ? row.fits : null,
    rank: Number.isFinite(row?.rank) ? row.rank : null,
    trigger_words: words.filter((word) => typeof word === 'string'),
    preview: text(row?.preview).startsWith('/') ? api.apiURL(row.preview) : ''
  }
}

async function load(model) {
  const query = model ? `?model=${encodeURIComponent(model)}` : ''
  try {
    const response = await api.fetchApi(ROUTE + query) // the browser keeps it by its ETag
    const answer = response.ok ? await response.json() : {}
    const files = answer.files.map(entryOf).filter((file) => file.name)
    return { model: text(answer.model), files }
  } catch {
    lists.delete(model) // to be asked again
    return { model: '', files: [] }
  }
}

/** The list for a node's model, and what model that is: asked for anew where `fresh`. */
export async function loraList(node, fresh = false) {
  let model = ''
  try {
    model = node ? modelOf(node) : ''
  } catch {
    // A graph that cannot be walked: the list is there without a model.
  }
  if (fresh || !lists.has(model)) lists.set(model, load(model))
  return lists.get(model)
}

/** What is known of every installed LoRA, those that fit the node's model first; never rejects. */
export async function loraFiles(node) {
  return (await loraList(node)).files
}

const path = (name) => String(name ?? '').replaceAll('\\', '/')
const last = (name) => path(name).split('/').pop()

/** What a list knows of one installed LoRA, or null. */
export function factsOf(name, files) {
  const exact = files.find((file) => path(file.name) === path(name))
  if (exact) return exact
  const same = files.filter((file) => last(file.name) === last(name))
  return same.length === 1 ? same[0] : null
}

/** What is known of one installed LoRA, for a node's model where one is given; or null. */
export async function loraFacts(name, node = undefined) {
  return factsOf(name, await loraFiles(node))
}

app.registerExtension({
  name: 'flux2-lora-edit.lora-files',
  refreshComboInNodes() {
    lists.clear()
  },
  nodeCreated(node) {
    // The headers are read before anybody asks: of thousands, that takes seconds.
    if (node.comfyClass === STACK && !lists.size) loraFiles()
  },
  setup() {
    // A run may have fetched some.
    api.addEventListener('execution_success', () => lists.clear())
  }
})
