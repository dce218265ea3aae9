"""What a trained model is worth: embeddings, retrieval, few-shot probes."""
