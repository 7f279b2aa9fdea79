"""Reports what works on which host: `run` runs the tests, `features` names them, `document`
writes `docs/compatibility.md`."""
