"""Small tools: token listings, critique records, verifier, tokenizer, int8 and roofline."""
