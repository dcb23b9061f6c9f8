"""What the answers tell of their quality: agreement and consensus."""
