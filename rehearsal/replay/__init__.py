"""Replay: data arrives step by step with requests and labels; the live model is held against a frozen first one.

`story` goes through the steps, `plan` cuts the time, `stage` sets everything up, `rows` makes a step's requests,
`answers` sends them, `frozen` serves the first champion beside the live model, `happened` reads what was retrained,
`journal` keeps it all on disk, `report` shows it.
"""
