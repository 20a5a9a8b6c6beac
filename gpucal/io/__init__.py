"""Reading and writing: stores, tables, foreign formats."""
