"""The steps of the chain: pure functions verb(inputs, params, *, backend) -> product."""
