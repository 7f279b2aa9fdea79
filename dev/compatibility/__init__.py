"""What works on which host: `run` runs the tests, `features` names what they show, `document`
writes `docs/compatibility.md`."""
