// The stage: the sheet of a run that is no grid, n x 1 and large, followed by the same loop and the same questions as any sheet. Beside the
// run it shows what a page begins with, a picture looked at again, and what was refused.
Darkroom.Stage = class extends Darkroom.Sheet {
  static FRAME = 100;     // milliseconds between two frames: a small model takes twenty steps a second
  static LARGE = true;    // its pictures are seen as large as they are
  static AGAIN = 2000;    // milliseconds until the page is told once more of what it has not taken notice of

  constructor(root, ask, tell) {
    super(root, ask, tell);
    this.aside = {key: '', over: false};  // what is shown instead of the run, or before there is one
  }

  get watched() { return !document.hidden; }  // whatever tab is in front: the page is told of what was made

  // What the page wants to be seen: {key, run} of a run to follow; `look`, `welcome` or `error` to show instead of it or with it.
  set(value) {
    const {key, run, count, ratio} = this.aside;
    // What was wrong takes nothing away that is there.
    if (value.error) value = {...this.aside, error: value.error, over: value.over || this.aside.over};
    // A look that was asked for before a run began, or as it ended, does not know of it.
    if (value.look && !value.key && this.key && !this.over) value = {...value, key, run, count, ratio};
    this.aside = value;
    this.over = value.over;
    Darkroom.memory.note({pick: value.pick});
    if (value.key !== this.key) {
      this.plan = this.run = undefined;
      if (value.key) this.expect(value);
      this.open(value.key);
    }
    this.arrange();
  }

  // --- What there is to see ---

  nothing() { this.arrange(); }

  // A run of which nothing is known yet but how many pictures it has, and their shape.
  expect({count, ratio}) {
    const waiting = () => Darkroom.element('figure', {class: 'frame waiting'});
    this.run = this.block('running', ratio, Array.from({length: count}, waiting));
    this.run.status.textContent = 'Starting ...';
  }

  refuse(text, lost) { this.say(text, lost); }

  build() {
    const {plan} = this, [width, height] = plan.cells[0].size;
    this.cells.clear();
    this.run = this.block('running', width / height, plan.cells.map((cell, x) => this.place(x, 0)));
    this.labels = [];
    this.pictures = 0;
    [this.status, this.notices, this.meter] = [this.run.status, this.run.notices, this.run.meter];
    this.arrange();
  }

  // A tray with what lies in it, and the lines below.
  block(state, ratio, contents) {
    const el = Darkroom.element, meter = el('div', {class: 'known'});
    const tray = el('div', {class: 'tray'}, ...contents), status = el('p', {class: 'status', role: 'status'}), notices = el('p', {class: 'notices', role: 'status'});
    const columns = Math.ceil(Math.sqrt(Math.max(contents.filter(one => one.classList.contains('frame')).length, 1)));
    const node = el('div', {class: `stage ${state}`, style: `--columns: ${columns}; --ratio: ${ratio}`}, tray, el('div', {class: 'meter', 'aria-hidden': 'true'}, meter), status, notices);
    return {node, tray, meter, status, notices};
  }

  arrange() {
    const el = Darkroom.element, {look, welcome, error} = this.aside;
    let shown = this.run;
    if (look) {
      const image = look.src && el('img', {src: look.src, alt: look.alt, draggable: 'true'});
      shown = this.block('done', look.ratio, [el('figure', {class: 'frame finished'}, image)]);
      shown.status.textContent = look.status;
      shown.notices.textContent = shown.notices.title = look.notices;
    } else if (!shown) {
      shown = this.block(welcome ? 'idle' : 'failed', 1, welcome ? [this.examples(welcome)] : []);
      shown.status.textContent = welcome ? welcome.status : '';
    }
    shown.tray.querySelectorAll('.refusal').forEach(node => node.remove());
    if (error) shown.tray.append(el('p', {class: 'refusal', role: 'alert', text: error}));
    this.shown = shown;
    if (this.root.firstChild !== shown.node || this.root.childNodes.length > 1) this.root.replaceChildren(shown.node);
  }

  examples({title, examples}) {
    const el = Darkroom.element;
    const chip = (text, i) => el('button', {type: 'button', class: 'chip', text, on: {click: () => this.tell('pick', {pick: `example:${i}`})}});
    return el('div', {class: 'welcome'},
      el('p', {class: 'welcome-title', text: title}),
      el('p', {text: 'Type a prompt and press Generate, or begin with one of these:'}),
      el('div', {class: 'chips'}, ...examples.map(chip)));
  }

  place(x) {
    const el = Darkroom.element, cell = this.plan.cells[x];
    const parts = {
      canvas: el('canvas'), image: el('img', {draggable: 'true', hidden: '', tabindex: '0', role: 'button'}), message: el('p', {class: 'frame-message', role: 'alert', hidden: ''}),
      caption: el('figcaption', {text: cell.name, hidden: this.plan.cells.length < 2}),
    };
    parts.image.addEventListener('load', () => { parts.image.hidden = false; });  // until then the last preview stays
    const pick = () => this.tell('pick', {pick: `${this.aside.run}:${cell.index}`});
    parts.image.addEventListener('click', pick);
    parts.image.addEventListener('keydown', event => {
      if (event.key !== 'Enter' && event.key !== ' ' || event.ctrlKey || event.metaKey) return;  // with Ctrl it is Generate's
      event.preventDefault();
      pick();
    });
    const node = el('figure', {class: 'frame waiting', data: {cell: cell.index}}, ...Object.values(parts));
    this.cells.set(cell.index, {node, cell, ...parts});
    return node;
  }

  show(index, state) {
    const here = this.cells.get(index);
    here.node.classList.remove('waiting', 'developing', 'finished', 'stopped', 'failed');
    here.node.classList.add(state.state);
    if (state.src && here.image.getAttribute('src') !== state.src) here.image.src = state.src;
    here.image.alt = `${state.state}: ${this.plan.heading}`;
    here.message.hidden = !state.message;
    here.message.textContent = state.message || '';
    const where = {developing: ` · ${state.step}/${state.total}`, stopped: ' · stopped'}[state.state] || '';
    here.caption.textContent = here.cell.name + where;
  }

  extent() {}  // there is no looking back

  // --- What the page is told ---

  async update(answer, round, page) {
    await super.update(answer, round, page);
    if (round !== this.round) return;
    if (this.aside.look) this.shown.notices.textContent = this.aside.look.notices;
    const pictures = [...this.states.values()].filter(state => state.src).length;
    if (pictures > this.pictures && !answer.done) this.tell('act', {key: this.key});
    this.pictures = pictures;
  }

  setRunning(running) {
    this.running = running;
    this.run.node.classList.toggle('running', running);
    this.run.node.classList.toggle('done', !running);
    if (!running) this.insist();
  }

  say(text, lost) {
    if (lost) this.insist();  // the page knows what to say then
    else {
      if (this.run) this.run.status.textContent = text;
      if (this.aside.look) this.shown.notices.textContent = text;  // the run goes on behind a picture that is looked at
    }
  }

  // Tells that the run has ended, or is gone, until the page has taken notice of it: a word may get lost on its way.
  async insist() {
    const {round, key} = this;
    while (round === this.round && key === this.aside.key && !this.over) {
      this.tell('act', {key});
      await Darkroom.pause(Darkroom.Stage.AGAIN);
    }
  }
};
