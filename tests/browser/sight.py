"""What a person sees of a template that has just been opened: how large, and what is in the way."""

from typing import Any

# As the Templates dialog opens it: with the view fitted to the nodes.
OPEN = """async ([workflow, name]) => {
    await app.loadGraphData(workflow, true, true, name, { openSource: 'template' })
}"""
# A third installed LoRA, and a second and a first.
FILL = """() => {
    for (const node of app.graph._nodes.filter(n => n.type === 'Flux2EditLoraStack'))
        for (const number of [1, 2, 3]) {
            const kind = node.widgets.find(w => w.name === `lora_${number}`)
            if (kind.value !== 'none') continue
            kind.value = 'installed'
            kind.callback?.(kind.value)
        }
}"""
# Nodes 2.0 draws a node as tall as what is in it, whatever its size says. A link is a curve from
# an output to an input, pulled to the right and to the left by a quarter of their distance.
SEE = """() => {
    const scale = app.canvas.ds.scale, nodes = app.graph._nodes, faults = [], margin = 4
    const boxes = new Map(nodes.map(node => {
        const drawn = document.querySelector(`[data-node-id="${node.id}"]`)?.getBoundingClientRect()
        const width = Math.max(node.size[0], (drawn?.width ?? 0) / scale)
        const height = Math.max(node.size[1], (drawn?.height ?? 0) / scale - 30)
        const [left, top] = node.pos
        return [node, [left, top - 30, left + width, top + height]]
    }))
    const said = node => `${node.title} ${boxes.get(node).map(Math.round)}`
    for (const one of nodes)
        for (const other of nodes) {
            const [a, b] = [boxes.get(one), boxes.get(other)]
            if (one.id < other.id && a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3])
                faults.push(`${said(one)} overlaps ${said(other)}`)
        }
    const links = app.graph.links
    for (const link of links.values?.() ?? Object.values(links)) {
        const from = app.graph.getNodeById(link.origin_id)
        const to = app.graph.getNodeById(link.target_id)
        const a = from.getOutputPos(link.origin_slot), b = to.getInputPos(link.target_slot)
        const pull = Math.hypot(a[0] - b[0], a[1] - b[1]) / 4
        const x = [a[0], a[0] + pull, b[0] - pull, b[0]], y = [a[1], a[1], b[1], b[1]]
        const at = ([p, q, r, s], t) =>
            p * (1 - t) ** 3 + 3 * q * t * (1 - t) ** 2 + 3 * r * t ** 2 * (1 - t) + s * t ** 3
        const passed = nodes.filter(node => node !== from && node !== to).filter(node => {
            const [left, top, right, bottom] = boxes.get(node)
            return [...Array(59).keys()].some(i => {
                const [px, py] = [at(x, (i + 1) / 60), at(y, (i + 1) / 60)]
                return px > left + margin && px < right - margin
                    && py > top + margin && py < bottom - margin
            })
        })
        for (const node of passed)
            faults.push(`the link ${from.title} to ${to.title} passes behind ${said(node)}`)
    }
    for (const node of nodes.filter(n => n.type === 'Flux2EditRunComfy')) {
        const [left, top, right, bottom] = boxes.get(node)
        const inside = ({ pos, size }) => pos[0] <= left && pos[1] <= top
            && pos[0] + size[0] >= right && pos[1] + size[1] >= bottom
        if (!app.graph._groups.some(inside)) faults.push(`${said(node)} is outside of its frame`)
    }
    return { scale, faults }
}"""


def open_template(page: Any, workflow: dict[str, Any], name: str) -> None:
    page.js(OPEN, [workflow, name])
    page._opened()


def see(page: Any) -> dict[str, Any]:
    """The zoom, and what overlaps, passes behind a node, or is outside of its frame."""
    page.settle()
    return page.js(SEE)


def fill_stacks(page: Any) -> None:
    page.js(FILL)
    page.settle()
