// More than three LoRAs: a second Stack with its own Apply behind the first Apply.

import { app } from '../../../../scripts/app.js'
import { APPLY, STACK, STACK_TYPE, noteChange } from './slots.js'
import { widgetOf } from '../page.js'
import { t } from '../words.js'

const GAP = 60

function targets(node, output) {
  return node.getOutputNodes?.(output) ?? []
}

/** The Apply that a Stack ends in, perhaps through nodes that hand the stack on. */
function applyOf(node, seen = new Set()) {
  if (seen.has(node)) return null
  seen.add(node)
  for (const [index, { type }] of (node.outputs ?? []).entries()) {
    if (type !== STACK_TYPE) continue
    for (const target of targets(node, index)) {
      const found = target.comfyClass === APPLY ? target : applyOf(target, seen)
      if (found) return found
    }
  }
  return null
}

const place = (slots, name) => slots.findIndex((slot) => slot.name === name)

/** Below `above` in its column, where nothing lies yet. */
function putBelow(node, above, graph) {
  let top = above.pos[1] + above.size[1] + GAP
  const covers = (other) =>
    other !== node &&
    other.pos[0] < above.pos[0] + node.size[0] &&
    other.pos[0] + other.size[0] > above.pos[0] &&
    other.pos[1] - 30 < top + node.size[1] &&
    other.pos[1] + other.size[1] > top - 30
  const others = [...(graph._nodes ?? graph.nodes)]
  for (let hit = others.find(covers); hit; hit = others.find(covers))
    top = hit.pos[1] + hit.size[1] + GAP
  node.pos = [above.pos[0], top]
}

/** What an output feeds: [node, input], with null for the way out of a subgraph. */
function endsOf(graph, from, output) {
  return [...(from.outputs[output].links ?? [])].map((id) => {
    const link = graph.getLink?.(id) ?? graph.links.get?.(id) ?? graph.links[id]
    return [graph.getNodeById(link.target_id), link.target_slot]
  })
}

/** What an output of `from` feeds is fed by the same output of `to`. */
function rewire(graph, from, to, name) {
  const output = place(from.outputs, name)
  if (output < 0) return
  for (const [target, slot] of endsOf(graph, from, output))
    to.connect(place(to.outputs, name), target, slot)
}

const leavesSubgraph = (graph, apply, name) =>
  endsOf(graph, apply, place(apply.outputs, name)).some(([target]) => !target)

function tell(detail) {
  app.extensionManager?.toast?.add({
    severity: 'info',
    summary: t('More than three LoRAs'),
    detail,
    life: 10000
  })
}

/** Add a Stack and an Apply behind the Apply that this Stack ends in; say how where there is none. */
export function addStack(node) {
  const { graph } = node
  const apply = applyOf(node)
  if (!apply) {
    tell(
      t(
        'A Stack holds three. Connect this one to an Apply FLUX.2 LoRA Stack first: its own Stack and Apply then come behind that one. RunComfy takes three in all.'
      )
    )
    return null
  }
  if (['model', 'clip'].some((name) => leavesSubgraph(graph, apply, name))) {
    tell(
      t(
        'The Apply of this Stack gives its model straight out of a subgraph. Add a second Stack and Apply FLUX.2 LoRA Stack behind that one by hand.'
      )
    )
    return null
  }
  graph.beforeChange?.()
  const stack = globalThis.LiteGraph.createNode(STACK)
  const next = globalThis.LiteGraph.createNode(APPLY)
  graph.add(stack)
  graph.add(next)
  next.size[0] = apply.size[0]
  for (const { name, value } of apply.widgets ?? []) {
    const widget = widgetOf(next, name)
    if (widget && widget.serialize !== false) widget.value = value
  }
  putBelow(stack, node, graph)
  putBelow(next, apply, graph)
  for (const name of ['model', 'clip']) {
    const fed = name === 'model' || apply.isInputConnected(place(apply.inputs, name))
    if (!fed) continue
    rewire(graph, apply, next, name)
    apply.connect(place(apply.outputs, name), next, place(next.inputs, name))
  }
  stack.connect(place(stack.outputs, 'lora_stack'), next, place(next.inputs, 'lora_stack'))
  graph.afterChange?.()
  noteChange()
  app.canvas?.selectNode?.(stack)
  app.canvas?.setDirty?.(true, true)
  return stack
}
