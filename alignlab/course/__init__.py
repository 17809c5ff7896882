"""The course: building the notebooks that students get."""
