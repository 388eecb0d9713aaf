"""Random networks with memory, and what each of them gives, known without the exporter."""
