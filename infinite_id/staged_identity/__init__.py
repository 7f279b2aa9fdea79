"""SeFi-IDE (arXiv 2402.00631): words for a person that change with the noise level."""
