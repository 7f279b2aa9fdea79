// Shows the report of Infinite-ID Diagnose on the node, to read and to copy.
import { app } from "../../scripts/app.js"

const SIZE = [560, 480]

app.registerExtension({
    name: "InfiniteID.Diagnose",
    nodeCreated(node) {
        if (node.comfyClass !== "InfiniteIDDiagnose") return
        const text = document.createElement("textarea")
        text.readOnly = true
        text.className = "comfy-multiline-input"
        const widget = node.addDOMWidget("shown", "text", text, { serialize: false })
        widget.serialize = false // in the saved workflow; the option is for the queued one
        node.setSize(SIZE)
        const before = node.onExecuted
        node.onExecuted = function (output) {
            before?.apply(this, arguments)
            text.value = output.text.join("\n")
        }
    },
})
