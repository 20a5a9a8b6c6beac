"""Quick looks: computed from a few subscans, kept in files, drawn. When one is made belongs in tasks."""
