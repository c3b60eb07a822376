// Blind test: two pictures without labels, pick the better, again and again; at the end a ranking with its uncertainty.
Darkroom.Blind = class {
  constructor(sheet) {
    this.sheet = sheet;
    // Kept with the sheet: closing the window loses no vote. votes: [winner, loser], as cell indexes; skipped: [one, other].
    Object.assign(this, sheet.votes.get(sheet.key) || {votes: [], skipped: []});
    sheet.votes.set(sheet.key, {votes: this.votes, skipped: this.skipped});
    this.asked = 0;       // counts questions: the answer to an earlier one comes too late
  }

  async begin() {
    const el = Darkroom.element;
    this.dialog = el('dialog', {class: 'blind', tabindex: '-1', 'aria-label': 'Blind test', on: {close: () => this.dialog.remove()}});
    this.dialog.addEventListener('keydown', event => this.key(event));
    this.sheet.root.after(this.dialog);
    this.dialog.showModal();
    await this.next();
  }

  fill(...children) {
    const el = Darkroom.element;
    const close = el('button', {type: 'button', class: 'loupe-close', 'aria-label': 'Close', text: '✕', on: {click: () => this.dialog.close()}});
    this.dialog.replaceChildren(close, ...children.filter(Boolean));
    this.dialog.focus();  // the button that had it is gone, and with it the keys would be
  }

  leave() { this.dialog.close(); }

  // The answer, or null when something else was asked meanwhile, or it went wrong: that is told, and can be tried again.
  async ask(question, again) {
    const el = Darkroom.element, mine = ++this.asked;
    const answer = await this.sheet.ask(question, {votes: this.votes, skipped: this.skipped});
    if (mine !== this.asked) return null;
    if (!answer.error) return answer;
    this.fill(
      el('p', {class: 'refusal', role: 'alert', text: answer.error}),
      el('div', {class: 'loupe-acts'}, el('button', {type: 'button', class: 'plain', text: 'Try again', on: {click: again}})),
    );
    return null;
  }

  async next() {
    const el = Darkroom.element;
    const answer = await this.ask('blind', () => this.next());
    if (!answer) return;
    this.left = answer.pair ? answer.left : 0;
    if (!answer.pair) { await this.reveal(); return; }
    this.pair = answer.pair;
    const side = (place, name) => el('button', {type: 'button', class: 'blind-side', 'aria-label': `The ${name} one is better`, data: {side: name}, on: {click: () => this.vote(place)}},
      el('img', {src: answer.pictures[place], alt: `The ${name} picture`}));
    this.fill(
      el('h2', {text: 'Which is better?'}),
      el('div', {class: 'blind-pair'}, side(0, 'left'), side(1, 'right')),
      el('p', {class: 'blind-count', text: `${this.votes.length} picked, ${answer.left} pairs not shown yet. Keys: ← → pick, ↓ neither.`}),
      el('div', {class: 'loupe-acts'},
        el('button', {type: 'button', class: 'plain', text: 'Neither', data: {side: 'neither'}, on: {click: () => this.skip()}}),
        el('button', {type: 'button', class: 'plain blind-end', text: 'Show the ranking', disabled: this.votes.length ? false : '', on: {click: () => this.reveal()}}),
      ),
    );
  }

  key(event) {
    if (!this.pair) return;
    const does = {ArrowLeft: () => this.vote(0), ArrowRight: () => this.vote(1), ArrowDown: () => this.skip()}[event.key];
    if (does) { event.preventDefault(); does(); }
  }

  async vote(place) {
    const pair = this.pair;
    if (!pair) return;
    this.pair = null;     // a second press must not vote twice
    this.votes.push([pair[place], pair[1 - place]]);
    await this.next();
  }

  async skip() {
    if (!this.pair) return;
    this.skipped.push(this.pair);
    this.pair = null;
    await this.next();
  }

  async reveal() {
    const el = Darkroom.element;
    this.pair = null;
    const answer = await this.ask('ranking', () => this.reveal());
    if (!answer) return;
    const table = ({title, verdict, rows}) => el('section', {},
      el('h3', {text: title}), el('p', {class: 'verdict', text: verdict}),
      el('table', {class: 'ranking'},
        el('thead', {}, el('tr', {}, ...['', 'won : lost', 'beats an average one', 'strength, 90 % interval'].map(text => el('th', {scope: 'col', text})))),
        el('tbody', {}, ...rows.map(row => el('tr', {},
          el('th', {scope: 'row', text: row.name}), el('td', {text: row.record}), el('td', {text: row.chance}),
          el('td', {}, el('span', {class: 'interval'}, el('span', {class: 'whisker', style: `left: ${row.low}%; width: ${row.high - row.low}%`}), el('span', {class: 'dot', style: `left: ${row.at}%`}))),
        )))));
    this.fill(
      el('h2', {text: `Ranking after ${this.votes.length} picked`}),
      ...answer.tables.map(table),
      el('div', {class: 'loupe-acts'},
        this.left && el('button', {type: 'button', class: 'plain', text: 'Go on picking', on: {click: () => this.next()}}),
        el('button', {type: 'button', class: 'plain', text: 'Close', on: {click: () => this.dialog.close()}})),
    );
  }
};
