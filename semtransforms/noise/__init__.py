"""The one loop that finds defensive noise, and the methods that need no loop."""
