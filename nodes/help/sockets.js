// Gives the pack's own wires colours; the page draws types that it does not know in grey.
import { app } from "../../scripts/app.js"

const COLOURS = {
    INFINITE_ID_MODEL: "#7fb3ff",
    INFINITE_ID_ENCODER: "#5fd3c8",
    INFINITE_ID_IDENTITY: "#ffb45e",
    INFINITE_ID_CROPS: "#c8a2ff",
    INSIGHTFACE: "#e58fb1",
}

app.registerExtension({
    name: "InfiniteID.Sockets",
    setup() {
        for (const [type, colour] of Object.entries(COLOURS)) {
            app.canvas.default_connection_color_byType[type] = colour
            LGraphCanvas.link_type_colors[type] = colour
        }
    },
})
