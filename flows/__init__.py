"""When and why: Prefect flows that run stages through the command `dvc`."""
