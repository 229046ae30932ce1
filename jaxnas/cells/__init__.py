"""Fixed cell spaces, the problems over them, and the searches that only ask."""
