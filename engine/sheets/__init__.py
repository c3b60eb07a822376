"""What is made of many pictures: contact sheets, films and archives, and how pictures are compared and ranked."""
