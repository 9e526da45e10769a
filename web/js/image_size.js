// FLUX.2 Image Size: the rows that the chosen size does not use are dimmed, and take no clicks.
//
// They keep their values and their places; nothing of it is saved.

import { app } from '../../../scripts/app.js'
import { after, widgetOf } from './page.js'

const NODE = 'Flux2EditImageSize'
const CHOICE = 'image_size'
const USED_BY = { width: 'custom', height: 'custom', megapixels: 'match image' }

function dim(node) {
  const linked = node.inputs?.some((input) => input.widget?.name === CHOICE && input.link != null)
  const choice = widgetOf(node, CHOICE)?.value
  for (const [name, by] of Object.entries(USED_BY)) {
    const widget = widgetOf(node, name)
    if (widget) widget.disabled = !linked && choice !== by
  }
  node.setDirtyCanvas?.(true)
}

app.registerExtension({
  name: 'flux2-lora-edit.image-size',
  nodeCreated(node) {
    if (node.comfyClass !== NODE) return
    const choice = widgetOf(node, CHOICE)
    if (!choice) return
    const change = () => dim(node)
    after(choice, 'callback', change)
    after(node, 'onConfigure', change)
    after(node, 'onConnectionsChange', change)
    change()
  }
})
