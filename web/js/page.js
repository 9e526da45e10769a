// What the other files do to the page alike. ComfyUI loads this one too: it does nothing by itself.

/** An element with these properties and children. */
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties)
  made.append(...children)
  return made
}

/** Give the page a style sheet, once. */
export function addStyle(id, textContent) {
  if (!document.getElementById(id)) document.head.append(element('style', { id, textContent }))
}

/** The widget of a node that has this name, if there is one. */
export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name)

/** Call `then` after the handler that an object has under this name, as that one is called. */
export function after(object, name, then) {
  const before = object[name]
  object[name] = function (...given) {
    const result = before?.apply(this, given)
    then.apply(this, given)
    return result
  }
}
