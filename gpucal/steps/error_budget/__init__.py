"""Errors of the PWV and of the scale of T_A*, from the errors of what both are computed from; physics section 12."""
