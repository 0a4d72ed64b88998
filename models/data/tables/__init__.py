"""Tables in files, read through Apache Arrow: CSV, Parquet and what Hugging Face's `datasets` saves."""
