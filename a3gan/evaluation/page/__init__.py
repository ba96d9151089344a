"""`report.html`: one page that carries its style and its drawings, made from `results.json` and pictures of faces."""
