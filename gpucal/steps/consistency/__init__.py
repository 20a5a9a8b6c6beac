"""Whether what saw the same water agrees about it: loads and OFFs, receivers, bands."""
