"""From items to text: knowledge bases, retrieval of documents, modality texts and their vectors."""
