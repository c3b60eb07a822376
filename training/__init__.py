"""How the starter model is made: data, tokenizer, networks, evaluation, export. Nothing of the product imports it."""
