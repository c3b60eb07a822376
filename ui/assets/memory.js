// What the page holds outlives a reload and a restart of the server: fields, tab, folded parts and the picture on the stage, kept by the
// browser. Each of its tabs has its own (sessionStorage); a new one begins with what was there last in any (localStorage).
window.Darkroom = window.Darkroom || {};

Darkroom.memory = (() => {
  const NAME = 'darkroom-page';
  let now;  // undefined until the page holds what was recalled: what its widgets say before that is only how it was built

  const read = storage => {
    try { return JSON.parse(window[storage].getItem(NAME)); } catch (error) { return null; }  // forbidden, or not ours
  };
  const recall = () => {
    const kept = read('sessionStorage') || read('localStorage');
    return kept && typeof kept === 'object' ? kept : {};
  };
  const write = storage => {
    try { window[storage].setItem(NAME, JSON.stringify(now)); } catch (error) { /* forbidden or full: the page works all the same */ }
  };
  const note = part => {
    if (!now) return;
    Object.assign(now, part);
    write('sessionStorage');
    write('localStorage');
  };
  return {
    recall,
    begin(values) { now = recall(); note({values}); },
    keep(values) { note({values}); },
    fold(name, open) { note({open: {...(now && now.open), [name]: open}}); },
    note,
  };
})();
