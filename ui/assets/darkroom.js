// Runs in the page's head, before gradio builds the page: theme, keys, pasting settings, and dropping a picture anywhere.
(() => {
  const wanted = () => localStorage.getItem('darkroom-theme') || 'dark';
  const system = matchMedia('(prefers-color-scheme: dark)');
  const show = () => {
    const dark = wanted() === 'dark' || (wanted() === 'system' && system.matches);
    if (document.body.classList.contains('dark') !== dark) document.body.classList.toggle('dark', dark);
    document.querySelectorAll('[data-theme-choice]').forEach(button =>
      button.setAttribute('aria-pressed', String(button.dataset.themeChoice === wanted())));
  };
  system.addEventListener('change', show);
  const begin = () => {
    show();
    // gradio sets its own theme class and builds the header a little later.
    new MutationObserver(show).observe(document.body, {attributes: true, attributeFilter: ['class']});
    const header = new MutationObserver(() => {
      if (document.querySelector('[data-theme-choice]')) { show(); header.disconnect(); }
    });
    header.observe(document.body, {childList: true, subtree: true});
  };
  // gradio may put this script in after the page was parsed.
  if (document.readyState === 'loading') document.addEventListener('DOMContentLoaded', begin); else begin();
  document.addEventListener('click', event => {
    const button = event.target.closest && event.target.closest('[data-theme-choice]');
    if (button) { localStorage.setItem('darkroom-theme', button.dataset.themeChoice); show(); }
  });

  const press = id => { const button = document.querySelector(id); if (button && !button.disabled) button.click(); };
  document.addEventListener('keydown', event => {
    const inText = event.target.closest && event.target.closest('#prompt, .axis-values');
    const asked = event.ctrlKey || event.metaKey || (event.shiftKey && inText);
    if (!asked || event.key !== 'Enter') return;
    event.preventDefault();
    press(document.querySelector('#compare-tab-button[aria-selected=true]') ? '#compare' : '#generate');
  }, true);

  // gradio takes Enter in a field that begins with one line for its end; here it begins the next line, as in the prompt.
  document.addEventListener('keypress', event => {
    if (event.key === 'Enter' && event.target.closest && event.target.closest('.axis-values')) event.stopPropagation();
  }, true);

  // Settings as A1111 writes them, pasted into the prompt, fill the fields instead.
  document.addEventListener('paste', event => {
    const text = event.target.closest && event.target.closest('#prompt') && event.clipboardData.getData('text/plain');
    if (!text || !/^[ \t]*steps: *\d+,.*\b(sampler|seed|cfg scale|size):/im.test(text)) return;
    event.preventDefault();
    window.Darkroom = Object.assign(window.Darkroom || {}, {pasted: text});
    press('#paste-settings');
  });

  // A file dropped anywhere goes to the one upload field that reads settings.
  const hasFile = event => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
  document.addEventListener('dragover', event => {
    if (hasFile(event)) { event.preventDefault(); document.body.classList.add('dropping'); }
  });
  document.addEventListener('dragleave', event => { if (!event.relatedTarget) document.body.classList.remove('dropping'); });
  document.addEventListener('drop', event => {
    document.body.classList.remove('dropping');
    if (!hasFile(event)) return;
    event.preventDefault();
    const input = document.querySelector('#settings input[type=file]');
    if (!input || !event.dataTransfer.files.length) return;
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    input.files = files.files;
    input.dispatchEvent(new Event('change', {bubbles: true}));
  });
})();
