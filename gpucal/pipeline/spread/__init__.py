"""One run spread over several devices or hosts. What each process does with a scan belongs in store."""
