"""Texts that a page must show as the texts they are."""

from __future__ import annotations

MARKUP = [
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><img src=x onerror=alert(1)>',
    "'><img src=x onerror=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>parent.alert(1)</script>'>",
    "<iframe src=javascript:alert(1)>",
    '" onmouseover="alert(1)" x="',
    "' autofocus onfocus='alert(1)",
    "<a href=javascript:alert(1)>owl</a>",
    "<details open ontoggle=alert(1)>",
    "<math><mtext></title><img src=x onerror=alert(1)>",
    "</p></div></figure><b>bold</b>",
    "</textarea><script>alert(1)</script>",
    "<!-- --!><img src=x onerror=alert(1)>",
    "<style>* { display: none }</style>",
    "<base href=//evil.example>",
    "<form action=//evil.example><input name=q>",
    "&lt;b&gt;owl&lt;/b&gt;",
    "&#x3C;img src=x onerror=alert(1)&#x3E;",
    "javascript:alert(1)",
    "{{value.state}}",
    "{{{value.state}}}",
    "{{#each value}}{{this}}{{/each}}",
    "{{constructor.constructor('alert(1)')()}}",
    "`; alert(1); `",
    "a & b < c > d \"e\" 'f' = `g`",
    "100 $ for an owl",
]
TEMPLATES = [
    "${alert(1)}",
    "${document.title}",
    "${unclosed",
    r"C:\users\x",
    r"back\slash",
    "\\`+alert(1)+`",
    r"\${alert(1)}",
]
"""gradio hands what Handlebars has filled in to `Function("return `...`")`: a template literal."""

HOSTILE = [*MARKUP, *TEMPLATES]
