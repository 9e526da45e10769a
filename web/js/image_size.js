// FLUX.2 Image Size: the rows that the chosen size does not use are dimmed, and take no clicks.
//
// They keep their values and their places; nothing of it is saved.

import { app } from '../../../scripts/app.js'

const NODE = 'Flux2EditImageSize'
const CHOICE = 'image_size'
const USED_BY = { width: 'custom', height: 'custom', megapixels: 'match image' }

const findWidget = (node, name) => node.widgets?.find((widget) => widget.name === name)

function dim(node) {
  const linked = node.inputs?.some((input) => input.widget?.name === CHOICE && input.link != null)
  const choice = findWidget(node, CHOICE)?.value
  for (const [name, by] of Object.entries(USED_BY)) {
    const widget = findWidget(node, name)
    if (widget) widget.disabled = !linked && choice !== by
  }
  node.setDirtyCanvas?.(true)
}

app.registerExtension({
  name: 'flux2-lora-edit.image-size',
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (nodeData.name !== NODE) return
    for (const hook of ['onConfigure', 'onConnectionsChange']) {
      const before = nodeType.prototype[hook]
      nodeType.prototype[hook] = function () {
        const result = before?.apply(this, arguments)
        dim(this)
        return result
      }
    }
  },
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const choice = findWidget(node, CHOICE)
    if (!choice) return
    const before = choice.callback
    choice.callback = function () {
      const result = before?.apply(this, arguments)
      dim(node)
      return result
    }
    dim(node)
  }
})
