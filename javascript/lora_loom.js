// LoRA Loom in AUTOMATIC1111 and Forge: what happens in the page while jobs run.
// Everything shown comes from lora-loom/v1; nothing is kept here, so a reloaded page or a second browser sees the same.
(function () {
    "use strict";
    if (window.loraLoom) return;
    const API = "lora-loom/v1/";
    const BEAT = 1000;
    const OPEN = ["queued", "running", "paused"];
    const panels = new WeakMap();
    const pictures = new Map();

    const root = () => (window.gradioApp ? window.gradioApp() : document);
    const key = () => root().querySelector("#lora_loom_key [data-key]")?.dataset.key || "";

    async function ask(path, method = "GET", body) {
        const headers = {"X-LoRA-Loom": key()};
        if (body !== undefined) headers["Content-Type"] = "application/json";
        const answer = await fetch(API + path, {method, headers, body: body === undefined ? body : JSON.stringify(body)});
        const data = await answer.json().catch(() => ({}));
        if (!answer.ok) throw new Error(sentence(data) || `The WebUI answered ${answer.status}.`);
        return data;
    }

    const sentence = (data) => [data.error, data.detail, data.errors].find((x) => typeof x === "string" && x) || "";

    function make(tag, options = {}, ...children) {
        const {cls, text, html, on, ...rest} = options;
        const node = document.createElement(tag);
        if (cls) node.className = cls;
        if (text !== undefined) node.textContent = text;
        for (const [name, value] of Object.entries(rest)) if (value !== undefined) node.setAttribute(name, value);
        for (const [name, does] of Object.entries(on || {})) node.addEventListener(name, does);
        node.append(...children.filter(Boolean));
        return node;
    }

    // ---- words -------------------------------------------------------------------------------------------------
    const STATES = {queued: "Waiting", running: "Running", paused: "Paused", done: "Done", stopped: "Stopped",
        failed: "Failed", interrupted: "Interrupted"};

    function spoken(seconds) {
        if (seconds === null || seconds === undefined) return "";
        const s = Math.max(0, Math.round(seconds));
        if (s < 90) return `${s} s`;
        const m = Math.round(s / 60);
        return m < 90 ? `${m} min` : `${Math.floor(m / 60)} h ${String(m % 60).padStart(2, "0")} min`;
    }

    const short = (x) => (x === null || x === undefined ? "" : Math.abs(x) >= 1e-3 || x === 0 ? x.toPrecision(3) : x.toExponential(1));
    const nameOf = (path) => String(path).split(/[\\/]/).pop();

    // ---- the chart ---------------------------------------------------------------------------------------------
    const SVG = "http://www.w3.org/2000/svg";
    function svg(tag, attributes, ...children) {
        const node = document.createElementNS(SVG, tag);
        for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
        node.append(...children);
        return node;
    }

    function ticks(low, high, about) {
        const rough = (high - low) / Math.max(1, about);
        const power = Math.pow(10, Math.floor(Math.log10(rough)));
        const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough * 0.999);
        const found = [];
        for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-6; k++) found.push(+(k * step).toPrecision(12));
        return found;
    }

    function range(noisy, smooth) {
        const sorted = noisy.slice().sort((a, b) => a - b);
        const cut = Math.floor(sorted.length / 50);
        const shown = sorted.slice(cut, sorted.length - cut).concat(smooth);
        let low = Math.min(...shown), high = Math.max(...shown);
        const pad = (high - low) * 0.1 || Math.abs(high) * 0.1 || 1;
        return [low >= 0 ? Math.max(0, low - pad) : low - pad, high + pad];
    }

    function plot(title, lines, marks, steps, box) {
        const [x0, y0, x1, y1] = box;
        const values = lines.map((l) => l.points.map((p) => p[1]));
        const [low, high] = range(lines.flatMap((l, i) => (l.thin ? values[i] : [])), lines.flatMap((l, i) => (l.thin ? [] : values[i])));
        const X = (s) => x0 + ((s - steps[0]) / Math.max(1, steps[1] - steps[0])) * (x1 - x0);
        const Y = (v) => y1 - Math.min(1, Math.max(0, (v - low) / (high - low))) * (y1 - y0);
        const g = svg("g", {});
        const heading = svg("text", {x: x0, y: y0 - 14, class: "loom-chart-title"});
        heading.textContent = title;
        g.append(heading);
        for (const v of ticks(low, high, 4)) {
            const label = svg("text", {x: x0 - 7, y: Y(v) + 4, class: "loom-chart-label", "text-anchor": "end"});
            label.textContent = +v.toPrecision(6);
            g.append(svg("line", {x1: x0, x2: x1, y1: Y(v), y2: Y(v), class: "loom-chart-rule"}), label);
        }
        for (const s of ticks(steps[0], steps[1], Math.max(2, (x1 - x0) / 90)).filter(Number.isInteger)) {
            const label = svg("text", {x: X(s), y: y1 + 16, class: "loom-chart-label", "text-anchor": "middle"});
            label.textContent = s.toLocaleString("en");
            g.append(label);
        }
        g.append(svg("line", {x1: x0, x2: x1, y1: y1, y2: y1, class: "loom-chart-axis"}));
        for (const s of marks) {
            g.append(svg("line", {x1: X(s), x2: X(s), y1: y0, y2: y1, class: "loom-chart-mark"}),
                svg("path", {d: `M${X(s) - 4},${y0 - 5}h8l-4,6z`, class: "loom-chart-flag"}));
        }
        for (const line of lines) {
            const places = line.points.map((p) => `${X(p[0]).toFixed(1)},${Y(p[1]).toFixed(1)}`);
            if (places.length > 1) g.append(svg("polyline", {points: places.join(" "), class: `loom-line ${line.cls}`}));
            if (line.dots || places.length === 1)
                for (const p of line.points) g.append(svg("circle", {cx: X(p[0]), cy: Y(p[1]), r: 3, class: `loom-dot ${line.cls}`}));
        }
        return {g, X, Y};
    }

    function chart(s, width) {
        const each = s.losses.filter((p) => p[1] !== null).map((p) => [p[0], p[1]]);
        const average = s.losses.filter((p) => p[2] !== null).map((p) => [p[0], p[2]]);
        const held = s.held_out.filter((p) => p[1] !== null);
        if (!each.length && !average.length && !held.length) return null;
        const marks = s.marks.filter((m) => m.kind === "lora" && m.step).map((m) => m.step);
        const last = Math.max(1, ...each.concat(average, held).map((p) => p[0]), ...marks);
        const total = s.progress && s.progress.unit === "step" ? s.progress.total : last;
        const steps = [0, Math.max(last, s.over ? last : Math.min(total, last * 1.15))];
        const height = 220, trained = each.length || average.length;
        const both = trained && held.length > 0, split = both ? Math.round(width * 0.6) : width;
        const board = svg("svg", {viewBox: `0 0 ${width} ${height}`, class: "loom-chart", role: "img"});
        const parts = [];
        if (trained) {
            parts.push({lines: [{points: each, cls: "each", thin: true}, {points: average, cls: "average"}],
                ...plot("Training loss", [{points: each, cls: "each", thin: true}, {points: average, cls: "average"}], marks, steps,
                    [46, 34, split - 16, height - 26])});
        }
        if (held.length) {
            parts.push(plot("Held-out loss", [{points: held, cls: "held", dots: true}], marks, steps,
                [both ? split + 42 : 46, 34, width - 12, height - 26]));
        }
        parts.forEach((p) => board.append(p.g));
        if (trained) hover(board, parts[0], s.losses, [46, 34, split - 16, height - 26], steps);
        return board;
    }

    function hover(board, part, losses, box, steps) {
        const line = svg("line", {y1: box[1], y2: box[3], class: "loom-chart-cursor", visibility: "hidden"});
        const text = svg("text", {y: box[1] + 12, class: "loom-chart-note", visibility: "hidden"});
        const area = svg("rect", {x: box[0], y: box[1], width: box[2] - box[0], height: box[3] - box[1], fill: "transparent"});
        area.addEventListener("mousemove", (event) => {
            const place = board.createSVGPoint();
            place.x = event.clientX;
            const x = place.matrixTransform(board.getScreenCTM().inverse()).x;
            const wanted = steps[0] + ((x - box[0]) / (box[2] - box[0])) * (steps[1] - steps[0]);
            const p = losses.reduce((a, b) => (Math.abs(b[0] - wanted) < Math.abs(a[0] - wanted) ? b : a));
            const at = part.X(p[0]), right = at > (box[0] + box[2]) / 2;
            for (const [name, value] of [["x1", at], ["x2", at], ["visibility", "visible"]]) line.setAttribute(name, value);
            text.setAttribute("x", right ? at - 6 : at + 6);
            text.setAttribute("text-anchor", right ? "end" : "start");
            text.setAttribute("visibility", "visible");
            text.textContent = `${p[0]}: ${short(p[1])} · ⌀ ${short(p[2])} · lr ${short(p[3])}`;
        });
        area.addEventListener("mouseleave", () => [line, text].forEach((n) => n.setAttribute("visibility", "hidden")));
        board.append(line, text, area);
    }

    // ---- pictures of a job ---------------------------------------------------------------------------------------
    async function picture(job, number, size) {
        const path = `jobs/${job}/files/${number}${size ? `?size=${size}` : ""}`;
        if (!pictures.has(path)) {
            const load = fetch(API + path, {headers: {"X-LoRA-Loom": key()}})
                .then((a) => (a.ok ? a.blob() : Promise.reject(new Error(String(a.status)))))
                .then((blob) => URL.createObjectURL(blob));
            load.catch(() => pictures.delete(path));
            pictures.set(path, load);
        }
        return pictures.get(path);
    }

    function shown(job, item, all, {pick, wide}) {
        const image = make("img", {alt: item.prompt || nameOf(item.path || ""), loading: "lazy"});
        picture(job, item.file, wide ? 1400 : 256).then((url) => (image.src = url)).catch(() => image.classList.add("loom-gone"));
        const what = pick ? nameOf(item.path || "") : item.step ? `step ${item.step}` : item.prompt ? "before" : nameOf(item.path || "");
        const picks = pick && make("button", {cls: "loom-pick", type: "button", text: "Use", on: {click: (event) => {
            event.stopPropagation();
            tell(pick, `${job} ${item.file}`);
        }}});
        return make("figure", {cls: "loom-shot", tabindex: 0, on: {click: () => enlarge(job, item, all)}}, image, picks,
            make("figcaption", {text: what, title: item.prompt || ""}));
    }

    function enlarge(job, item, all) {
        let at = all.indexOf(item);
        const image = make("img", {}), words = make("p", {});
        const box = make("div", {cls: "loom-light", role: "dialog", tabindex: -1}, image, words);
        const show = () => {
            const one = all[at];
            picture(job, one.file).then((url) => (image.src = url));
            words.textContent = [one.step ? `step ${one.step}` : "", one.prompt || nameOf(one.path || "")].filter(Boolean).join(" · ");
        };
        const keys = (event) => {
            if (event.key === "Escape") leave();
            else if (event.key === "ArrowRight" || event.key === "ArrowLeft") {
                at = (at + (event.key === "ArrowRight" ? 1 : all.length - 1)) % all.length;
                show();
            } else return;
            event.preventDefault();
            event.stopPropagation();
        };
        const leave = () => {
            document.removeEventListener("keydown", keys, true);
            box.remove();
        };
        box.addEventListener("click", (event) => (event.target === image ? (at = (at + 1) % all.length, show()) : leave()));
        document.addEventListener("keydown", keys, true);
        (root().querySelector(".gradio-container") || document.body).append(box);
        show();
    }

    // ---- a panel: the job that it watches, and the queue -----------------------------------------------------------
    class Panel {
        constructor(place) {
            this.place = place;
            this.kinds = (place.dataset.kinds || "").split(" ").filter(Boolean);
            this.chosen = place.dataset.job || "";
            this.parts = {};
            this.seen = {};
            for (const name of ["fault", "head", "bar", "buttons", "chart", "shots", "results", "notes", "log", "queue"]) {
                this.parts[name] = make("div", {cls: `loom-${name}`});
            }
            place.replaceChildren(...Object.values(this.parts));
        }

        async beat() {
            if (this.busy || Date.now() < this.quietUntil) return;
            this.busy = true;
            try {
                const {jobs} = await ask("jobs");
                const mine = jobs.filter((j) => !this.kinds.length || this.kinds.includes(j.kind));
                const open = mine.filter((j) => OPEN.includes(j.state) && j.state !== "queued");
                const newest = (mine[mine.length - 1] || {}).id;
                if (newest !== this.newest && this.newest !== undefined) this.chosen = "";
                this.newest = newest;
                const id = mine.some((j) => j.id === this.chosen) ? this.chosen : (open[0] || mine[mine.length - 1] || {}).id;
                this.current = id;
                const job = id ? await ask(`jobs/${id}`) : null;
                this.show(job, mine);
                this.told("");
            } catch (error) {
                this.told(error.message);
                // Nobody answers: A1111 may be starting, and a request in the middle of that can end it.
                if (error instanceof TypeError) this.quietUntil = Date.now() + 15000;
            } finally {
                this.busy = false;
            }
        }

        once(name, value, draw) {
            const mark = JSON.stringify(value);
            if (this.seen[name] === mark) return;
            this.seen[name] = mark;
            const drawn = draw();
            this.parts[name].replaceChildren(...(Array.isArray(drawn) ? drawn : [drawn]).filter(Boolean));
        }

        told(text) {
            this.once("fault", text, () => text && make("p", {cls: "loom-error", text}));
        }

        show(s, jobs) {
            this.queue(jobs, s);
            if (s && this.open === s.id && s.over) tell("loom_fresh", s.id);
            this.open = s && !s.over ? s.id : "";
            if (!s) {
                for (const name of Object.keys(this.parts)) if (!["queue", "fault", "head"].includes(name)) this.once(name, "", () => "");
                this.once("head", "", () => this.place.dataset.empty ? make("p", {cls: "loom-quiet", text: this.place.dataset.empty}) : "");
                return;
            }
            this.head(s);
            this.bar(s);
            this.once("buttons", [s.id, s.state, s.kind, s.resumable], () => this.buttons(s));
            const width = Math.max(420, Math.round(this.place.clientWidth / 20) * 20 || 640);
            this.once("chart", [s.id, s.last, s.state, width, s.losses.length], () => chart(s, width) && [legend(s), chart(s, width), moved(s)]);
            const shots = s.over && s.kind !== "train" ? [] : (s.previews || []).filter((p) => p.file !== null && p.file !== undefined);
            this.once("shots", [s.id, shots.length], () => shots.length ? gallery("Previews", s.id, shots.slice().reverse(), shots) : "");
            this.results(s);
            const notes = (s.notes || []).slice(-40);
            this.once("notes", [s.id, notes.length, notes[notes.length - 1]], () => noted(notes));
            this.log(s);
        }

        head(s) {
            const left = s.seconds_left ? `${spoken(s.seconds_left)} left` : "";
            const p = s.progress;
            const count = p && p.total ? `${p.unit || "step"} ${p.done} / ${p.total}` : "";
            const stage = s.state === "queued" && s.ahead ? `${s.ahead} before it` : s.over ? "" : s.stage;
            this.once("head", [s.id, s.state, s.title, stage, count, left, s.error], () => [
                make("div", {cls: "loom-title"}, make("strong", {text: s.title}), make("span", {cls: `loom-state loom-${s.state}`, text: STATES[s.state]})),
                make("div", {cls: "loom-now"}, make("span", {text: stage}), make("span", {text: count}), make("span", {text: left})),
                s.error && make("p", {cls: "loom-error", text: s.error}),
            ]);
        }

        bar(s) {
            const p = s.progress;
            const share = s.state === "done" ? 1 : p && p.total ? Math.min(1, p.done / p.total) : 0;
            if (!this.parts.bar.firstChild) this.parts.bar.append(make("div", {}));
            this.parts.bar.firstChild.style.width = `${(share * 100).toFixed(1)}%`;
            this.parts.bar.className = `loom-bar loom-${s.state}`;
            this.parts.bar.classList.toggle("loom-wait", !share && s.state === "running");
        }

        buttons(s) {
            const act = (name, text, cls, hint) => make("button", {cls: `loom-button ${cls || ""}`, text, title: hint, type: "button",
                "data-act": name, on: {click: (event) => this.act(s.id, name, event.target)}});
            const trains = s.kind === "train";
            const found = [];
            if (s.state === "running" || s.state === "paused") {
                found.push(act("stop", trains ? "Stop and keep" : "Stop", "loom-stop", trains ? "Ends after this step; the LoRA is saved and can go on later." : ""));
                if (trains) {
                    found.push(act("save", "Save now", "", "Saves the LoRA as it is."), act("sample", "Sample now", "", "Draws the previews."));
                    found.push(s.state === "paused" ? act("resume", "Resume", "loom-main") : act("pause", "Pause", "", "Waits after this step, to make a picture in between."));
                }
            } else if (s.state === "queued") found.push(act("cancel", "Take out of the queue"));
            else {
                if (s.resumable) found.push(act("again", "Resume", "loom-main", "Goes on from its last state."));
                else found.push(act("again", "Run again"));
                if (this.place.dataset.reuse) found.push(make("button", {cls: "loom-button", type: "button", text: "Use its settings",
                    "data-act": "reuse", on: {click: () => tell(this.place.dataset.reuse, s.id)}}));
                if (trains && s.outputs.length && this.place.dataset.choose) found.push(make("button", {cls: "loom-button", type: "button",
                    text: "Choose the best save", on: {click: () => tell(this.place.dataset.choose, s.id)}}));
            }
            return found;
        }

        async act(id, name, node) {
            node.disabled = true;
            try {
                const done = await ask(`jobs/${id}/${name}`, "POST", {});
                this.told("");
            } catch (error) {
                this.told(error.message);
            }
            setTimeout(() => (node.disabled = false), 1500);
            this.beat();
        }

        results(s) {
            const saved = (s.marks || []).filter((m) => m.kind !== "state");
            const drawn = saved.filter((m) => /\.(png|jpe?g|webp)$/i.test(m.path) && m.file !== null && m.file !== undefined);
            const pick = this.place.dataset.pick;
            if (pick && drawn.length && s.state === "done" && this.picked !== s.id) {
                this.picked = s.id;
                tell(pick, `${s.id} ${drawn[drawn.length - 1].file}`);
            }
            const files = saved.filter((m) => !drawn.includes(m));
            const keep = this.place.dataset.keep, best = s.report && s.report.recommendation;
            if (keep && best && best.file && s.state === "done" && this.kept !== s.id) {
                this.kept = s.id;
                tell(keep, `${best.strength} ${nameOf(best.file)}`);
            }
            this.once("results", [s.id, s.state, saved.length, s.report && Object.keys(s.report).length], () => [
                s.over && s.report && s.report.cells ? scores(s.report, keep) : "",
                ...(drawn.length ? gallery("Pictures", s.id, drawn, drawn, {pick, wide: this.place.dataset.wide}) : []),
                files.length ? make("details", {open: files.length < 5 ? "" : undefined}, make("summary", {}, "Files", ` (${files.length})`),
                    make("ul", {cls: "loom-files"}, ...files.slice().reverse().map((m) => make("li", {}, make("code", {text: nameOf(m.path), title: m.path}),
                        make("span", {text: m.step ? `step ${m.step}` : m.kind}))))) : "",
                s.over && s.report ? figures(s.report) : "",
            ]);
        }

        log(s) {
            if (!this.parts.log.firstChild) {
                const text = make("pre", {});
                const fold = make("details", {}, make("summary", {text: "Log"}), text);
                this.parts.log.append(fold);
            }
            const fold = this.parts.log.firstChild;
            if (fold.open) ask(`jobs/${s.id}/log`).then((a) => {
                const pre = fold.lastChild, end = pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 8;
                if (pre.textContent !== a.log) {
                    pre.textContent = a.log || "—";
                    if (end) pre.scrollTop = pre.scrollHeight;
                }
            }).catch(() => {});
        }

        queue(jobs, current) {
            const rows = jobs.slice(-30).reverse();
            this.once("queue", [rows.map((j) => [j.id, j.state, j.title]), current && current.id], () => rows.length > 1 || (rows.length && !current) ? [
                make("h4", {text: "Jobs"}),
                make("ul", {}, ...rows.map((j) => make("li", {cls: current && j.id === current.id ? "loom-on" : "", tabindex: 0,
                    on: {click: () => { this.chosen = j.id; this.beat(); }}},
                    make("span", {cls: `loom-state loom-${j.state}`, text: STATES[j.state]}), make("span", {cls: "loom-name", text: j.title}),
                    make("time", {text: when(j.created)}),
                    OPEN.includes(j.state) && j.state !== "queued" ? make("span", {}) : make("button", {cls: "loom-x", type: "button", text: "×", title: "Remove from the list",
                        on: {click: (event) => { event.stopPropagation(); this.act(j.id, "remove", event.target); }}})))),
            ] : "");
        }
    }

    function when(seconds) {
        const then = new Date(seconds * 1000), today = new Date().toDateString() === then.toDateString();
        return today ? then.toLocaleTimeString([], {hour: "2-digit", minute: "2-digit"}) : then.toLocaleDateString();
    }

    function legend(s) {
        const item = (cls, text) => make("span", {cls: `loom-key ${cls}`}, make("i", {}), make("span", {text}));
        const saves = s.marks.some((m) => m.kind === "lora" && m.step);
        return make("div", {cls: "loom-legend"}, item("each", "each step"), item("average", "average"),
            s.held_out.length ? item("held", "pictures never trained on") : "", saves ? item("mark", "saved") : "");
    }

    // How far training has moved each block: |dW| / |W|.
    function moved(s) {
        const blocks = Object.entries(s.blocks || {}), last = (s.changes || [])[(s.changes || []).length - 1];
        if (!blocks.length || !last) return "";
        const most = Math.max(...blocks.map(([, v]) => v), 1e-12), share = (v) => `${+(100 * v).toPrecision(2)} %`;
        return make("div", {cls: "loom-moved"}, make("span", {}, "Weights moved by", ` ${share(last[1])} (step ${last[0]})`),
            make("div", {}, ...blocks.map(([name, v]) => make("i", {title: `${name.replace("_", " ")}: ${share(v)}`,
                style: `height:${Math.max(2, Math.round(22 * v / most))}px`}))));
    }

    const gallery = (title, job, items, all, how = {}) => [make("h4", {text: title}),
        make("div", {cls: how.wide ? "loom-gallery loom-wide-shots" : "loom-gallery"}, ...items.map((item) => shown(job, item, all, how)))];

    function noted(notes) {
        if (!notes.length) return "";
        const bad = notes.filter((n) => n.level === "warning");
        return [...bad.slice(-3).map((n) => make("p", {cls: "loom-warning", text: n.text})),
            make("details", {}, make("summary", {}, "Notes", ` (${notes.length})`), make("ul", {}, ...notes.map((n) => make("li", {text: n.text}))))];
    }

    function figures(report) {
        const rows = Object.entries(report).filter(([, v]) => ["number", "string", "boolean"].includes(typeof v) && String(v).length < 200);
        if (!rows.length) return "";
        return make("details", {}, make("summary", {text: "Figures"}), make("dl", {}, ...rows.flatMap(([k, v]) =>
            [make("dt", {text: k.replace(/_/g, " ")}), make("dd", {text: typeof v === "number" ? +v.toPrecision(5) : String(v)})])));
    }

    // ---- the scores of a comparison of saves ------------------------------------------------------------------------
    const COLUMNS = [["strength", "Strength"], ["likeness", "Likeness"], ["held_out", "Held-out loss"],
        ["leak", "Change without trigger"], ["copies", "Copies"]];

    function scores(report, keep) {
        const best = report.recommendation || {};
        const shownColumns = COLUMNS.filter(([name]) => report.cells.some((c) => c[name] !== null && c[name] !== undefined));
        const head = make("tr", {}, make("th", {text: "Save"}), ...shownColumns.map(([, text]) => make("th", {text})), make("th", {}));
        const rows = report.cells.map((c) => {
            const chosen = c.file === best.file && c.strength === best.strength;
            const button = keep && make("button", {cls: "loom-button", type: "button", text: "Choose", on: {click: () => tell(keep, `${c.strength} ${nameOf(c.file)}`)}});
            return make("tr", {cls: chosen ? "loom-on" : ""}, make("td", {text: nameOf(c.file).replace(/\.safetensors$/, "")}),
                ...shownColumns.map(([name]) => make("td", {text: c[name] === null ? "" : String(+Number(c[name]).toPrecision(3))})), make("td", {}, button));
        });
        return make("div", {}, make("h4", {text: "Recommended"}),
            make("p", {cls: "loom-good", text: `${nameOf(best.file || "")} at strength ${best.strength}. ${(best.reasons || []).join(" ")}`}),
            make("table", {cls: "loom-table"}, make("tbody", {}, head, ...rows)));
    }

    // ---- handing something to gradio: a hidden text field and the hidden button beside it ---------------------------
    function tell(name, value) {
        const field = root().querySelector(`#${name}_text textarea, #${name}_text input`);
        const button = root().querySelector(`#${name}_go`);
        if (!field || !button) return;
        const type = field.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
        Object.getOwnPropertyDescriptor(type.prototype, "value").set.call(field, typeof value === "string" ? value : JSON.stringify(value));
        field.dispatchEvent(new Event("input", {bubbles: true}));
        setTimeout(() => (button.tagName === "BUTTON" ? button : button.querySelector("button")).click(), 60);
    }

    function captions(name) {
        const changed = {};
        for (const field of root().querySelectorAll(".loom-captions textarea[data-name]")) {
            if (field.value !== field.defaultValue) changed[field.dataset.name] = field.value;
        }
        if (Object.keys(changed).length) tell(name, changed);
    }

    document.addEventListener("click", (event) => {
        const node = event.target.closest?.("[data-loom-tell], [data-loom-captions]");
        if (!node) return;
        if (node.dataset.loomCaptions) captions(node.dataset.loomCaptions);
        else tell(node.dataset.loomTell, node.dataset.value || "");
    });

    document.addEventListener("input", (event) => {
        const field = event.target;
        if (!field.matches?.(".loom-captions textarea")) return;
        field.classList.toggle("loom-changed", field.value !== field.defaultValue);
        const open = root().querySelectorAll(".loom-captions .loom-changed").length;
        for (const node of root().querySelectorAll("[data-loom-captions]")) node.disabled = !open;
    });

    setInterval(() => {
        for (const place of root().querySelectorAll(".loom-panel")) {
            if (!panels.has(place)) panels.set(place, new Panel(place));
            if (place.offsetParent !== null && !document.hidden) panels.get(place).beat();
        }
    }, BEAT);

    const TABS = ["train", "choose", "library", "merge", "inpaint", "recipes", "doctor"];
    function open(name) {
        const bar = root().querySelector("#lora_loom_tabs > .tab-nav");
        const button = bar && bar.querySelectorAll("button")[TABS.indexOf(name)];
        if (button) button.click();
    }

    // What the hosts call after a paste: they define it for txt2img and img2img alone.
    window.recalculate_prompts_lora_loom_inpaint = () => [];
    window.recalculate_prompts_inpaint = window.recalculate_prompts_inpaint || ((...given) => window.recalculate_prompts_img2img?.(...given) || []);

    window.switch_to_lora_loom_inpaint = () => {
        const tabs = [...root().querySelectorAll("#tabs > .tab-nav button")];
        const ours = tabs.find((b) => b.textContent.trim() === "LoRA Loom");
        if (ours) ours.click();
        open("inpaint");
    };

    // Which page of img2img is open: "inpaint" for those with a mask.
    function img2imgPage() {
        const buttons = [...root().querySelectorAll("#mode_img2img > .tab-nav > button")];
        return buttons.findIndex((b) => b.classList.contains("selected")) >= 2 ? "inpaint" : "picture";
    }

    window.loraLoom = {tell, ask, open, img2imgPage};
})();
