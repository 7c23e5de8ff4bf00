"""How many shared bikes will be in use in an hour?"""
