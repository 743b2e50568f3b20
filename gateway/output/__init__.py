"""What the steps of jobs print: how much there is, its text, and how far it says the step is."""
