"""What happens to images before a network sees them: T, and what trainers do."""
